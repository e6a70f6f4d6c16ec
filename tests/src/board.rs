//! An emulated board, and the images it can run.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use keyferry::device::DeviceError;
use keyferry::device::port::{self, Port, PortError};
use keyferry::device::session::Session;
use keyferry::emulate::logs::Entry;
pub use keyferry::emulate::{Board, QemuBoard};
use keyferry::emulate::{Config, Emulator, Entropy, Line};
use keyferry_firmware::device::Operations;
use keyferry_protocol::identity::DeviceId;
use keyferry_protocol::link::Millis;
use tempfile::TempDir;

/// Names the folder that holds the images, `<board>/<name>.elf` each, where somebody has built them before.
const IMAGES: &str = "KEYFERRY_FIRMWARE_DIR";

/// Makes of each function a test on each emulated board: the function takes the board.
#[macro_export]
macro_rules! on_every_board {
    ($($case:ident),+ $(,)?) => {
        // A board without a module here does not compile.
        const _: () = assert!($crate::board::Board::ALL.len() == 3);

        mod mps2_an386 {
            $(#[test]
            fn $case() {
                super::$case($crate::board::Board::Mps2An386);
            })+
        }

        mod riscv_virt {
            $(#[test]
            fn $case() {
                super::$case($crate::board::Board::RiscvVirt);
            })+
        }

        mod native {
            $(#[test]
            fn $case() {
                super::$case($crate::board::Board::Native);
            })+
        }
    };
}

/// Makes of each function a test on each board that QEMU runs: for what looks into the machine's memory, or is about the target's own
/// machine code.
#[macro_export]
macro_rules! on_every_qemu_board {
    ($($case:ident),+ $(,)?) => {
        // A board without a module here does not compile.
        const _: () = assert!($crate::board::QemuBoard::ALL.len() == 2);

        mod mps2_an386 {
            $(#[test]
            fn $case() {
                super::$case($crate::board::QemuBoard::Mps2An386);
            })+
        }

        mod riscv_virt {
            $(#[test]
            fn $case() {
                super::$case($crate::board::QemuBoard::RiscvVirt);
            })+
        }
    };
}

/// An image of a board's firmware.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Image {
    /// The real one.
    Default,
    /// Keys are stored in the clear.
    PlainStorage,
    /// Nothing is wiped.
    NoWipe,
    /// No line: an application that uses its key. It has no heap.
    Telemetry,
    /// No line: it judges test vectors.
    Vectors,
    /// The real one, whose flash stops where its command line says.
    FlashFaults,
    /// The first time its stack overflows, or it hangs where its folder has a file `hang.txt`; then it is as the real one, with ECDH only.
    Overflow,
}

impl Image {
    /// Its name, without `.elf`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::PlainStorage => "sabotage-plain-storage",
            Self::NoWipe => "sabotage-no-wipe",
            Self::Telemetry => "telemetry",
            Self::Vectors => "vectors",
            Self::FlashFaults => "flash-faults",
            Self::Overflow => "overflow",
        }
    }

    /// The ELF file, or the program: from the folder that `KEYFERRY_FIRMWARE_DIR` names, or else built here.
    ///
    /// # Panics
    /// If the build fails.
    #[must_use]
    pub fn elf(self, board: Board) -> PathBuf {
        match std::env::var_os(IMAGES) {
            Some(folder) => Path::new(&folder)
                .join(board.name())
                .join(format!("{}.elf", self.name())),
            None => self.build(board),
        }
    }

    /// Builds it, as `cargo xtask image` does.
    fn build(self, board: Board) -> PathBuf {
        let mut command = crate::command::cargo();
        command
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .args(["run", "--quiet", "--package", "xtask", "--", "--json"])
            .args(["image", "--board", board.name(), self.name()]);
        let output = command.stderr(Stdio::inherit()).output();
        let output = output.expect("cargo runs");
        assert!(
            output.status.success(),
            "the firmware does not build: {command:?}"
        );
        let built: serde_json::Value =
            serde_json::from_slice(&output.stdout).expect("it says in JSON where the firmware is");
        built["path"].as_str().expect("a path").into()
    }
}

/// Opens a port that this process has just closed. While another thread starts a process, the child holds the port, and its lock,
/// until it becomes that other program.
///
/// # Panics
/// If it does not open for a minute: a busy machine takes its time to start a process.
#[must_use]
pub fn open_again(path: &str) -> Box<dyn Port> {
    for _ in 0..3_000 {
        match port::open(path) {
            Err(PortError::Busy { .. }) => thread::sleep(Duration::from_millis(20)),
            result => return result.expect("the port opens"),
        }
    }
    panic!("{path} stays in use");
}

/// How often a device may be silent, for the five seconds that a session waits, until it counts as dead.
const LATE_ATTEMPTS: usize = 24;

/// What went over the serial line so far.
#[derive(Clone, Default)]
pub struct Wire {
    /// From the station to the device.
    pub down: Vec<u8>,
    /// From the device to the station.
    pub up: Vec<u8>,
}

/// An emulated device in a folder of its own, which goes when the rig is dropped. With a [`QemuBoard`] one can look into its memory.
pub struct Rig<B = QemuBoard> {
    board: B,
    config: Config,
    emulator: Emulator,
    wire: Arc<Mutex<Wire>>,
    folder: TempDir,
}

impl Rig {
    /// As [`Self::start_on`], on the board of those tests that are not about boards.
    ///
    /// # Panics
    /// If it does not start.
    #[must_use]
    pub fn start(image: Image, seed: u8) -> Self {
        Self::start_on(QemuBoard::Mps2An386, image, seed)
    }
}

impl<B: Copy + Into<Board>> Rig<B> {
    /// Starts a new device. Its fuses and its entropy follow from `seed`, and with them all its own keys.
    ///
    /// # Panics
    /// If it does not start.
    #[must_use]
    pub fn start_on(board: B, image: Image, seed: u8) -> Self {
        Self::start_with(board, image, seed, Entropy::Seed([seed; 32]), &[])
    }

    /// As [`Self::start_on`], with entropy from elsewhere and more files in the device's folder.
    ///
    /// # Panics
    /// If it does not start.
    #[must_use]
    pub fn start_with(
        board: B,
        image: Image,
        seed: u8,
        entropy: Entropy,
        files: &[(&str, &[u8])],
    ) -> Self {
        let folder = tempfile::tempdir().expect("a folder for temporary files");
        let device = folder.path().join("device");
        fs::create_dir(&device).expect("a new folder");
        fs::write(device.join("fuse.bin"), [seed; 32]).expect("a new file");
        for (name, contents) in files {
            fs::write(device.join(name), contents).expect("a new file");
        }
        let id = DeviceId([seed; 16]);
        let on = board.into();
        let mut config = Config::new(on, image.elf(on), device, id);
        config.entropy = entropy;
        config.capture = true;
        let emulator = Emulator::start(&config).expect("the device starts");
        Self {
            board,
            config,
            emulator,
            wire: Arc::default(),
            folder,
        }
    }

    /// Cuts the power and switches it on again.
    ///
    /// # Panics
    /// If the device does not start.
    #[must_use]
    pub fn restart(self) -> Self {
        self.emulator.kill();
        let emulator = Emulator::start(&self.config).expect("the device starts");
        Self { emulator, ..self }
    }

    /// Cuts the power, and switches it on again with another image.
    ///
    /// # Panics
    /// If the device does not start.
    #[must_use]
    pub fn restart_as(mut self, image: Image) -> Self {
        self.config.firmware = image.elf(self.config.board);
        self.restart()
    }

    /// Cuts the power, and switches it on again with the provisioning strap set, or not.
    ///
    /// # Panics
    /// If the device does not start.
    #[must_use]
    pub fn restart_with_strap(mut self, set: bool) -> Self {
        self.config.words.retain(|word| !word.starts_with("strap="));
        if !set {
            self.config.words.push("strap=off".to_owned());
        }
        self.restart()
    }

    /// Cuts the power, and switches it on again with virtual time that follows from its instructions, not from how busy the host is; its log
    /// then tells when the LED is switched.
    ///
    /// # Panics
    /// If the device does not start.
    #[must_use]
    pub fn restart_with_led_log(mut self) -> Self {
        self.config.instruction_shift = Some(0);
        self.config.words.push("led=log".to_owned());
        self.restart()
    }

    /// All that it has ever sent, also to nobody.
    ///
    /// # Panics
    /// If that cannot be read.
    #[must_use]
    pub fn sent(&self) -> Vec<u8> {
        fs::read(self.config.dir.join("uart.bin")).expect("the device is recorded")
    }

    /// Cuts the power, and switches it on again with another kind of serial port.
    ///
    /// # Panics
    /// If the device does not start.
    #[must_use]
    pub fn restart_on(mut self, line: Line) -> Self {
        self.config.line = line;
        self.restart()
    }

    /// Cuts the power, puts another flash in, and switches it on again.
    ///
    /// # Panics
    /// If the file cannot be written, or the device does not start.
    #[must_use]
    pub fn restart_with_flash(self, flash: &[u8]) -> Self {
        let path = self.emulator.flash_path().to_owned();
        self.emulator.kill();
        fs::write(path, flash).expect("a writable folder");
        let emulator = Emulator::start(&self.config).expect("the device starts");
        Self { emulator, ..self }
    }

    /// Cuts the power, and switches it on again with these words on the firmware's command line.
    ///
    /// # Panics
    /// If the device does not start.
    #[must_use]
    pub fn restart_with_words(mut self, words: &[&str]) -> Self {
        self.config.words = words.iter().map(ToString::to_string).collect();
        self.restart()
    }

    /// Cuts the power, writes `area` over the beginning of the flash, and switches it on again with these words on the firmware's command
    /// line. Only that beginning is written, since a whole flash file can be long.
    ///
    /// # Panics
    /// If the file cannot be written, or the device does not start.
    #[must_use]
    pub fn restart_with_area(mut self, area: &[u8], words: Vec<String>) -> Self {
        let path = self.emulator.flash_path();
        self.emulator.kill();
        let mut file = fs::OpenOptions::new()
            .write(true)
            .open(path)
            .expect("the device has a flash file");
        file.write_all(area).expect("a writable file");
        self.config.words = words;
        let emulator = Emulator::start(&self.config).expect("the device starts");
        Self { emulator, ..self }
    }

    /// The first `length` bytes of the device's flash now.
    ///
    /// # Panics
    /// If they cannot be read.
    #[must_use]
    pub fn area(&self, length: usize) -> Vec<u8> {
        let mut area = vec![0; length];
        fs::File::open(self.emulator.flash_path())
            .and_then(|mut file| file.read_exact(&mut area))
            .expect("the device has a flash file");
        area
    }

    /// A file in the device's folder.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.config.dir.join(name)
    }

    /// Cuts the power with a `SIGKILL`, at this instruction of the device. Only another start ends the rig's own part in it.
    ///
    /// # Panics
    /// If QEMU has gone already.
    #[cfg(unix)]
    pub fn kill(&self) {
        let process = i32::try_from(self.emulator.process_id()).expect("a process id");
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(process),
            nix::sys::signal::Signal::SIGKILL,
        )
        .expect("QEMU runs");
    }

    /// Greets the device. What goes over the line from now on is recorded in [`Self::wire`]; close the session before
    /// opening the next one.
    ///
    /// # Panics
    /// If the device does not answer.
    #[must_use]
    pub fn session(&self) -> Session {
        for attempt in 0..LATE_ATTEMPTS {
            let port = open_again(self.emulator.port());
            let tap = Tap {
                port,
                wire: self.wire.clone(),
            };
            match Session::open(Box::new(tap)) {
                // A machine that is busy with something else lets an emulator wait.
                Err(DeviceError::Silent { waited, .. }) => {
                    println!("attempt {attempt}: silent for {waited:?}");
                }
                session => return session.expect("the device answers"),
            }
        }
        panic!("the device stays silent");
    }

    /// The id of the emulator's process.
    #[must_use]
    pub fn process_id(&self) -> u32 {
        self.emulator.process_id()
    }

    /// Resets the device, as its reset button does.
    ///
    /// # Panics
    /// If the emulator does not take it.
    pub fn reset(&mut self) {
        self.emulator.reset().expect("the emulator resets it");
    }

    /// Pulls the plug; the port's other end goes with it.
    pub fn pull(self) {
        self.emulator.kill();
    }

    /// The serial port, as one names it to `--port`.
    #[must_use]
    pub fn port(&self) -> &str {
        self.emulator.port()
    }

    /// Puts other fuses in; they count from the next start on.
    ///
    /// # Panics
    /// If the file cannot be written.
    pub fn burn_fuses(&self, fuses: [u8; 32]) {
        fs::write(self.config.dir.join("fuse.bin"), fuses).expect("a writable folder");
    }

    /// What went over the line so far.
    #[must_use]
    pub fn wire(&self) -> Wire {
        self.wire
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The bytes of the device's flash now.
    ///
    /// # Panics
    /// If they cannot be read.
    #[must_use]
    pub fn flash(&self) -> Vec<u8> {
        fs::read(self.emulator.flash_path()).expect("the device has a flash file")
    }

    /// The files of the device's folder, by name, without its fuses: they stand for silicon.
    ///
    /// # Panics
    /// If they cannot be read.
    #[must_use]
    pub fn files(&self) -> Vec<(String, Vec<u8>)> {
        let entries = fs::read_dir(&self.config.dir).expect("the folder is there");
        entries
            .map(|entry| entry.expect("a readable folder"))
            .map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry))
            .filter(|(name, _)| name != "fuse.bin")
            .map(|(name, entry)| (name, fs::read(entry.path()).expect("a readable file")))
            .collect()
    }
}

impl Rig {
    /// What it has logged since it was started, decoded.
    ///
    /// # Panics
    /// If that cannot be read.
    #[must_use]
    pub fn log(&self) -> Vec<Entry> {
        let mut log = self.emulator.log().expect("the image logs");
        log.entries().expect("the log is a file")
    }

    /// Cuts the power and switches it on again, and has these bytes arrive before the firmware does anything.
    ///
    /// # Panics
    /// If the emulator or the port does not take it.
    #[must_use]
    pub fn restart_to(mut self, bytes: &[u8]) -> Self {
        self.config.frozen = true;
        let mut rig = self.restart();
        rig.config.frozen = false;
        let mut port = open_again(rig.emulator.port());
        assert_eq!(port.write(bytes).expect("the port is there"), bytes.len());
        // What the emulator takes of it, it takes now. What it leaves, it may take later: both must do no harm.
        thread::sleep(Duration::from_millis(100));
        let machine = rig.emulator.machine().expect("QEMU runs it");
        machine.cont().expect("it goes on");
        rig
    }

    /// The device's RAM now.
    ///
    /// # Panics
    /// If QEMU cannot write it down.
    #[must_use]
    pub fn ram(&mut self) -> Vec<u8> {
        let range = self.board.ram();
        let length = range.end - range.start;
        let path = self.folder.path().join("ram.bin");
        self.emulator
            .machine()
            .expect("QEMU runs it")
            .dump_memory(range.start, length, &path)
            .expect("QEMU dumps memory");
        let ram = fs::read(&path).expect("QEMU wrote it");
        assert_eq!(ram.len(), length as usize);
        ram
    }

    /// Private-key operations since the device started. The image keeps them in RAM behind a mark, so that no message is needed to
    /// ask for them; an order that is nobody's must not move [`Operations::for_orders`].
    ///
    /// # Panics
    /// If the mark does not stand in RAM exactly once.
    #[must_use]
    pub fn operations(&mut self) -> Operations {
        const MARK: &[u8] = b"private-key uses";
        let ram = self.ram();
        let mut found = ram
            .windows(MARK.len())
            .enumerate()
            .filter_map(|(at, part)| (part == MARK).then_some(at));
        let at = found.next().expect("the mark is in RAM");
        assert_eq!(found.next(), None, "the mark is there once");
        let (counts, _) = ram[at + MARK.len()..].as_chunks::<4>();
        let count = |index: usize| u32::from_le_bytes(counts[index]);
        Operations {
            unwrap: count(0),
            receipt: count(1),
            voucher: count(2),
            proof: count(3),
            status: count(4),
        }
    }
}

/// A port that writes down what passes.
struct Tap {
    port: Box<dyn Port>,
    wire: Arc<Mutex<Wire>>,
}

impl Port for Tap {
    fn name(&self) -> &str {
        self.port.name()
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.port.write(bytes)?;
        let mut wire = self.wire.lock().unwrap_or_else(PoisonError::into_inner);
        wire.down.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn read(&mut self, bytes: &mut [u8], until: Millis) -> io::Result<usize> {
        let count = self.port.read(bytes, until)?;
        let mut wire = self.wire.lock().unwrap_or_else(PoisonError::into_inner);
        wire.up.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn now(&self) -> Millis {
        self.port.now()
    }

    fn set_baud(&mut self, baud: u32) -> io::Result<bool> {
        self.port.set_baud(baud)
    }
}
