//! Counts the instructions of stretches of work, for `cargo xtask bench`, and looks how far the stack has grown. Never in a product.
//!
//! QEMU with `-icount shift=0` lets one nanosecond of virtual time pass for each instruction, so a tick of the 25 MHz timer
//! is 40 of them. To count single ones the meter works like a vernier scale: it reads the timer every 41 instructions, so
//! that each reading comes one instruction later in its tick, until two readings lie two ticks apart. The second of them
//! was then the first instruction of a tick, and how many readings it took says where the first one was. Interrupts wait
//! meanwhile: what arrives on the line does so at the host's pace and is not part of the work.
//!
//! That is for the stretches that `bench leakage` compares. Others may hold them, and are timed in whole ticks, with interrupts on.
//!
//! What it finds goes into the file `measured.txt` in the emulated device's folder, one line a stretch: its name and
//! the number of instructions, with the few of the meter itself, always the same. After each step lines more: `stack` and `heap`,
//! the most bytes of each that were in use since the start, and `missed`, the bytes of stack that were in use and were not scrubbed.

use core::arch::asm;
use core::fmt::Write as _;

use heapless::String;
use keyferry_firmware::platform::{Mark, Stretch};
use semihosting::fs::File;
use semihosting::io::Write as _;

use crate::{clock, stack};

/// Where the lines go. QEMU works in the device's folder.
const FILE: &core::ffi::CStr = c"measured.txt";

/// Longest line in bytes.
const LINE: usize = 32;

/// Instructions in a tick: nanoseconds at 25 MHz.
const TICK: u32 = 1_000_000_000 / clock::FREQUENCY_HZ;

/// The meter.
pub struct Meter {
    /// Open from the start on: QEMU 7.2 begins a file anew each time it is opened to append.
    file: Option<File>,
    /// Ticks left, and the place in the tick, where the exact stretch began.
    began: u32,
    /// Ticks left where each of the others began.
    coarse: [u32; Stretch::Store as usize + 1],
    /// Ticks of the longest [`Stretch::Fed`].
    longest: u32,
}

/// Its name in the file.
const fn name(stretch: Stretch) -> &'static str {
    match stretch {
        Stretch::Boot => "boot",
        Stretch::Fed => "fed",
        Stretch::Verify => "verify",
        Stretch::Step => "step",
        Stretch::Generate => "generate",
        Stretch::Kek => "kek",
        Stretch::Key => "key",
        Stretch::Proof => "proof",
        Stretch::Sign => "sign",
        Stretch::Store => "store",
    }
}

const fn exact(stretch: Stretch) -> bool {
    matches!(stretch, Stretch::Kek | Stretch::Key)
}

impl Meter {
    /// A meter at rest.
    pub fn new() -> Self {
        Self {
            file: File::create(FILE).ok(),
            began: 0,
            coarse: [0; _],
            longest: 0,
        }
    }

    /// Begins or ends a stretch.
    pub fn take(&mut self, mark: Mark) {
        match mark {
            Mark::Begins(stretch) if exact(stretch) => {
                cortex_m::interrupt::disable();
                self.began = Edge::find().ticks_left;
            }
            Mark::Begins(stretch) => self.coarse[stretch as usize] = clock::TICKS_LEFT.read(),
            Mark::Ends(stretch) if exact(stretch) => self.end(name(stretch)),
            // There are many: only the longest so far is told.
            Mark::Ends(Stretch::Fed) => {
                let began = self.coarse[Stretch::Fed as usize];
                let ticks = began.wrapping_sub(clock::TICKS_LEFT.read());
                if ticks > self.longest {
                    self.longest = ticks;
                    self.write(name(Stretch::Fed), u64::from(ticks) * u64::from(TICK));
                }
            }
            Mark::Ends(stretch) => {
                // It counts down; it wraps after 172 seconds, and a stretch is shorter.
                let ticks = self.coarse[stretch as usize].wrapping_sub(clock::TICKS_LEFT.read());
                self.write(name(stretch), u64::from(ticks) * u64::from(TICK));
                if matches!(stretch, Stretch::Step | Stretch::Boot) {
                    self.write("stack", stack::peak() as u64);
                    if stretch == Stretch::Step {
                        self.write("missed", stack::missed() as u64);
                    }
                    #[cfg(feature = "rsa-suites")]
                    self.write("heap", keyferry_board::heap::peak() as u64);
                }
            }
        }
    }

    fn end(&mut self, what: &str) {
        let ended = Edge::find();
        // SAFETY: not inside a critical section: the main loop's call of the device leads here.
        unsafe { cortex_m::interrupt::enable() };
        // From the edge where it began to the one that was found at the end, less the way from the first reading to that
        // one. The timer counts down; it wraps after 172 seconds, and a stretch is shorter.
        let whole = u64::from(self.began.wrapping_sub(ended.ticks_left)) * u64::from(TICK);
        let way = u64::from(ended.readings) * u64::from(TICK + 1);
        self.write(what, whole.saturating_sub(way));
    }

    fn write(&mut self, what: &str, count: u64) {
        let mut line: String<LINE> = String::new();
        let written = writeln!(line, "{what} {count}").is_ok()
            && self
                .file
                .as_mut()
                .is_some_and(|file| file.write_all(line.as_bytes()).is_ok());
        if !written {
            defmt::error!("the meter cannot write its file");
        }
    }
}

/// The first instruction of a tick.
struct Edge {
    /// The timer's value there.
    ticks_left: u32,
    /// How many readings came before it, 41 instructions apart.
    readings: u32,
}

impl Edge {
    /// Finds the next one. Without `-icount` there may be none that looks like one; it then gives up after 4096 readings.
    #[inline(never)]
    fn find() -> Self {
        let timer = clock::TICKS_LEFT.address();
        let ticks_left: u32;
        let mut readings = 0_u32;
        // SAFETY: reads one register of the timer, which changes nothing, and no other memory. From one `ldr` to the next
        // it is 41 instructions: on the first turn 4 of them and then 36, on each other turn 4 at the end and those 36.
        unsafe {
            asm!(
                "ldr {before}, [{timer}]",
                ".rept 4",
                "nop",
                ".endr",
                "2:",
                ".rept 33",
                "nop",
                ".endr",
                "adds {readings}, {readings}, #1",
                "cmp {readings}, #4096",
                "beq 3f",
                "ldr {now}, [{timer}]",
                "subs {step}, {before}, {now}",
                "mov {before}, {now}",
                "cmp {step}, #2",
                "bne 2b",
                "3:",
                timer = in(reg) timer,
                before = out(reg) ticks_left,
                now = out(reg) _,
                step = out(reg) _,
                readings = inout(reg) readings,
                options(nostack),
            );
        }
        Self {
            ticks_left,
            readings,
        }
    }
}
