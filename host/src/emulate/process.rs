//! QEMU's command line, and the process of an emulated device, which does not outlive the one who started it.

use std::convert::Infallible;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Sender};
use std::{env, io, thread};

use keyferry_protocol::identity::DeviceId;

use super::folder::{CAPTURE, FLASH, FUSE, Logs, SOCKET, VENDOR_CERTIFICATE, VENDOR_KEY};
use super::{Config, EmulateError, Entropy, Line, QemuBoard};

/// The serial port's name in QEMU.
pub(crate) const UART: &str = "uart";

/// A running emulator.
pub(crate) struct Process {
    pub(crate) child: Child,
    /// Ends the thread that started it when it is dropped; see [`spawn`].
    _keeper: Sender<Infallible>,
}

/// Starts QEMU in `dir`, with its monitor connecting to `monitor_port` of this host.
pub(crate) fn start(
    board: QemuBoard,
    config: &Config,
    dir: &Path,
    logs: Logs,
    monitor_port: u16,
) -> Result<Process, EmulateError> {
    let program = board.program();
    let qemu = find(program).ok_or(EmulateError::QemuMissing { program })?;
    let firmware = std::path::absolute(&config.firmware)
        .map_err(|source| EmulateError::Start { program, source })?;
    let mut command = mortal(&qemu);
    command
        .args(arguments(board, config, dir, &firmware, monitor_port))
        // Files of the device are named relative to its folder: no path can hold a comma or a blank that QEMU splits at.
        .current_dir(dir)
        .stdin(Stdio::null())
        // Semihosting writes the device's log to QEMU's standard output.
        .stdout(logs.device)
        .stderr(logs.output);
    spawn(program, command)
}

/// A command that runs `program`, which on Linux gets `SIGKILL` from the kernel should this process die without a chance to stop it:
/// `setpriv` (util-linux) asks for that and becomes the program. Elsewhere QEMU can be left behind; the folder's lock then tells the
/// next start.
pub(crate) fn mortal(program: &Path) -> Command {
    match death_signal() {
        Some(setpriv) => {
            let mut command = Command::new(setpriv);
            command.args(["--pdeathsig", "KILL", "--"]).arg(program);
            command
        }
        None => Command::new(program),
    }
}

/// Starts a [`mortal`] command. The kernel goes by the *thread* that started the child, so a thread of its own does, and waits until the
/// [`Process`] is dropped. `program` is for the error.
pub(crate) fn spawn(program: &'static str, mut command: Command) -> Result<Process, EmulateError> {
    let failed = |source| EmulateError::Start { program, source };
    let (send_child, child) = mpsc::channel();
    let (keeper, dropped) = mpsc::channel();
    thread::Builder::new()
        .name("emulated device".to_owned())
        .spawn(move || {
            let _ = send_child.send(command.spawn());
            // Its copies of the log go, so that the emulator alone holds the folder's lock.
            drop(command);
            // Nothing is ever sent: this ends when the other side is dropped.
            let _ = dropped.recv();
        })
        .map_err(failed)?;
    let child = child
        .recv()
        .map_err(|_| failed(io::ErrorKind::BrokenPipe.into()))?
        .map_err(failed)?;
    Ok(Process {
        child,
        _keeper: keeper,
    })
}

/// What the board is told of itself: words of the form `name=value`. Files are those in its folder `dir`, which its process calls `prefix`.
pub(crate) fn words(
    device_id: DeviceId,
    entropy: Entropy,
    dir: &Path,
    prefix: &str,
) -> Vec<String> {
    let mut words = vec![
        format!("id={}", hex::encode(device_id.0)),
        format!("fuse={prefix}{FUSE}"),
    ];
    // A device with one of the two only must say so itself: it refuses to be enrolled.
    for (word, name) in [
        ("vendor-certificate", VENDOR_CERTIFICATE),
        ("vendor-key", VENDOR_KEY),
    ] {
        if dir.join(name).exists() {
            words.push(format!("{word}={prefix}{name}"));
        }
    }
    match entropy {
        Entropy::Host => {}
        Entropy::Seed(seed) => words.push(format!("seed={}", hex::encode(seed))),
        Entropy::Failing => words.push("entropy=fail".to_owned()),
        Entropy::Stuck => words.push("entropy=stuck".to_owned()),
    }
    words
}

/// QEMU's arguments.
fn arguments(
    board: QemuBoard,
    config: &Config,
    dir: &Path,
    firmware: &Path,
    monitor_port: u16,
) -> Vec<OsString> {
    let length = config.board.flash_length();
    // A server that does not wait: the device starts before anybody has called. QEMU chooses the number of port 0.
    let mut uart = match config.line {
        Line::PseudoTerminal => format!("pty,id={UART}"),
        Line::UnixSocket => format!("socket,id={UART},path={SOCKET},server=on,wait=off"),
        Line::Tcp => format!("socket,id={UART},host=127.0.0.1,port=0,server=on,wait=off"),
    };
    if config.capture {
        uart.push_str(&format!(",logfile={CAPTURE},logappend=on"));
    }
    let mut semihosting = "enable=on,target=native,arg=keyferry".to_owned();
    for word in words(config.device_id, config.entropy, dir, "") {
        semihosting.push_str(&format!(",arg={word}"));
    }
    for word in &config.words {
        // QEMU takes a doubled comma for one that belongs to the word.
        semihosting.push_str(&format!(",arg={}", word.replace(',', ",,")));
    }

    let mut arguments: Vec<OsString> = Vec::new();
    let mut add = |option: &str, value: &str| arguments.extend([option.into(), value.into()]);
    match board {
        QemuBoard::Mps2An386 => {
            add("-machine", "mps2-an386,memory-backend=flash");
            add(
                "-object",
                &format!("memory-backend-file,id=flash,mem-path={FLASH},share=on,size={length}"),
            );
        }
        QemuBoard::RiscvVirt => {
            add("-machine", "virt");
            add("-m", "32M");
            // The first bank of flash would be the boot program's.
            add(
                "-drive",
                &format!("if=pflash,unit=1,format=raw,file={FLASH}"),
            );
        }
    }
    add("-display", "none");
    add("-chardev", &uart);
    add("-serial", &format!("chardev:{UART}"));
    add("-semihosting-config", &semihosting);
    add(
        "-chardev",
        &format!("socket,id=monitor,host=127.0.0.1,port={monitor_port}"),
    );
    add("-mon", "chardev=monitor,mode=control");
    if let Some(shift) = config.instruction_shift {
        add("-icount", &format!("shift={shift}"));
    }
    if config.frozen {
        arguments.push("-S".into());
    }
    arguments.push("-nodefaults".into());
    // The board is built only when the monitor says so: see `Emulator::connect`.
    arguments.push("-preconfig".into());
    arguments.push(match board {
        QemuBoard::Mps2An386 => "-kernel".into(),
        // It is what runs first: with `-kernel`, QEMU would start a boot program of its own, or nothing, before it.
        QemuBoard::RiscvVirt => "-bios".into(),
    });
    arguments.push(firmware.into());
    arguments
}

/// Finds a program in `PATH`.
fn find(program: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?)
        .map(|dir| dir.join(program))
        .find(|path| path.is_file())
        // Relative entries of PATH mean this process's folder, not the device's.
        .and_then(|path| std::path::absolute(path).ok())
}

/// The `setpriv` program, where it is one that can have a child killed with its parent (busybox's cannot).
fn death_signal() -> Option<PathBuf> {
    if !cfg!(target_os = "linux") {
        return None;
    }
    let setpriv = find("setpriv")?;
    let help = Command::new(&setpriv)
        .arg("--help")
        .stdin(Stdio::null())
        .output()
        .ok()?;
    let knows = help
        .stdout
        .windows(b"--pdeathsig".len())
        .any(|part| part == b"--pdeathsig");
    knows.then_some(setpriv)
}

#[cfg(test)]
mod tests {
    use keyferry_protocol::identity::DeviceId;

    use super::super::Board;
    use super::*;

    fn line(config: &Config) -> String {
        let board = config.board.qemu().unwrap();
        let firmware = Path::new("/firm, ware.elf");
        arguments(board, config, &config.dir, firmware, 4711)
            .into_iter()
            .map(|argument| argument.into_string().unwrap())
            .collect::<Vec<_>>()
            .join(" ")
    }

    fn config() -> Config {
        Config::new(
            Board::Mps2An386,
            "unused".into(),
            "unused".into(),
            DeviceId([0xab; 16]),
        )
    }

    #[test]
    fn the_device_learns_its_id_and_its_fuses() {
        let line = line(&config());
        assert!(
            line.contains(&format!("arg=id={}", "ab".repeat(16))),
            "{line}"
        );
        assert!(line.contains("arg=fuse=fuse.bin"), "{line}");
        assert!(!line.contains("entropy"), "{line}");
        assert!(!line.contains("seed"), "{line}");
        assert!(!line.contains("icount"), "{line}");
    }

    #[test]
    fn a_vendor_key_in_the_folder_is_the_devices() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config {
            dir: dir.path().to_owned(),
            ..config()
        };
        assert!(!line(&config).contains("vendor"));
        std::fs::write(dir.path().join("vendor.der"), b"certificate").unwrap();
        std::fs::write(dir.path().join("vendor.key"), [1; 32]).unwrap();
        let line = line(&config);
        assert!(line.contains("arg=vendor-certificate=vendor.der"), "{line}");
        assert!(line.contains("arg=vendor-key=vendor.key"), "{line}");
    }

    #[test]
    fn entropy_is_chosen_on_the_command_line() {
        let with = |entropy| {
            line(&Config {
                entropy,
                ..config()
            })
        };
        assert!(with(Entropy::Seed([1; 32])).contains(&format!("arg=seed={} ", "01".repeat(32))));
        assert!(with(Entropy::Failing).contains("arg=entropy=fail "));
        assert!(with(Entropy::Stuck).contains("arg=entropy=stuck "));
    }

    #[test]
    fn more_words_follow_as_they_are() {
        let config = Config {
            words: vec!["flash-stop=1f".to_owned(), "a,b".to_owned()],
            ..config()
        };
        let line = line(&config);
        assert!(line.contains(",arg=flash-stop=1f,arg=a,,b "), "{line}");
    }

    #[test]
    fn the_serial_port_is_a_terminal_or_a_socket() {
        let with = |line_kind| {
            line(&Config {
                line: line_kind,
                ..config()
            })
        };
        assert!(with(Line::PseudoTerminal).contains("-chardev pty,id=uart "));
        assert!(with(Line::UnixSocket).contains("-chardev socket,id=uart,path=uart.socket,"));
        assert!(with(Line::Tcp).contains("-chardev socket,id=uart,host=127.0.0.1,port=0,"));
    }

    #[test]
    fn the_firmwares_path_is_an_argument_of_its_own() {
        assert!(line(&config()).ends_with("-kernel /firm, ware.elf"));
    }

    #[test]
    fn each_board_gets_its_flash_and_its_firmware_in_its_own_way() {
        let config = Config {
            board: Board::RiscvVirt,
            ..config()
        };
        let line = line(&config);
        assert!(
            line.contains("if=pflash,unit=1,format=raw,file=flash.bin "),
            "{line}"
        );
        assert!(line.ends_with("-bios /firm, ware.elf"), "{line}");
    }

    #[test]
    fn a_program_that_is_not_installed_is_not_found() {
        assert_eq!(find("no-such-program-as-this-one"), None);
    }
}
