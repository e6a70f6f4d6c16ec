//! The journal of a device's flash operations, as the fault hook of the emulated boards writes it, and the cuts it takes.

use std::fs;
use std::path::Path;

use sha2::Digest as _;

/// Bytes of an entry: kind, address, length. The numbers are little-endian.
const ENTRY: usize = 9;
/// Bytes of a commit block, with which a snapshot begins: see the store's description.
const COMMIT_BLOCK: u32 = 64;

/// What becomes of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Cut {
    /// It does not begin.
    Before,
    /// A part of it is done.
    Torn,
    /// It is done.
    After,
}

impl Cut {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Before, Self::Torn, Self::After];

    /// The cut of kill number `kill` of order number `order`: each once in three kills, in another order each time.
    fn of(order: usize, kill: usize) -> Self {
        Self::ALL[(kill + choice(order, kill / 3)) % 3]
    }

    /// As the fault hook wants it.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Before => "before",
            Self::Torn => "torn",
            Self::After => "after",
        }
    }
}

/// A number that order and kill determine.
fn choice(order: usize, kill: usize) -> usize {
    let seed = sha2::Sha256::digest([order.to_le_bytes(), kill.to_le_bytes()].concat());
    usize::from(seed[0]) << 8 | usize::from(seed[1])
}

/// One operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// A word is programmed.
    Program { address: u32 },
    /// A page is erased.
    Erase { address: u32 },
}

/// A journal, and whether the device halted at its end.
pub(crate) fn read(path: &Path) -> (Vec<Operation>, bool) {
    // The device may not have begun it yet.
    let bytes = fs::read(path).unwrap_or_default();
    let (entries, _) = bytes.as_chunks::<ENTRY>();
    let mut operations = Vec::new();
    for entry in entries {
        let address = u32::from_le_bytes([entry[1], entry[2], entry[3], entry[4]]);
        match entry[0] {
            b'P' => operations.push(Operation::Program { address }),
            b'E' => operations.push(Operation::Erase { address }),
            b'H' => return (operations, true),
            other => panic!("an entry of kind {other}"),
        }
    }
    (operations, false)
}

/// All operations of a start and an order.
pub(crate) struct Recorded {
    /// In their order.
    pub(crate) operations: Vec<Operation>,
    /// How many of them are the start's.
    pub(crate) start: usize,
    /// Bytes of a page.
    pub(crate) page: u32,
}

/// A kill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kill {
    /// The operation.
    pub(crate) at: usize,
    /// What becomes of it.
    pub(crate) cut: Cut,
    /// Chooses among the forms of a torn one.
    pub(crate) seed: u32,
}

/// The turns of the kills at the erasing of what is old: torn most of the time, which has many forms; the others have one each.
const ERASE_TURNS: [Cut; 4] = [Cut::Torn, Cut::After, Cut::Torn, Cut::Before];

impl Recorded {
    /// The kills of order number `order`: `spread` evenly over all operations, or one at each if there are no more; then `aimed` at
    /// those that decide, the words of the tick and the erasing of what is old, by turns. Nothing else goes into it, so that it is the
    /// same on every board.
    pub(crate) fn schedule(&self, order: usize, spread: usize, aimed: usize) -> Vec<Kill> {
        let count = spread.min(self.operations.len());
        let mut kills: Vec<_> = (0..count)
            .map(|kill| (self.place(order, kill, count), Cut::of(order, kill)))
            .collect();
        let with_role =
            |role| (self.start..self.operations.len()).filter(move |at| self.role(*at) == role);
        let mut ticks: Vec<_> = with_role("tick").collect();
        let erases: Vec<_> = with_role("erase").collect();
        assert!(!ticks.is_empty() && !erases.is_empty(), "no commit");
        // The last word first: with it the new state is in force.
        ticks.reverse();
        kills.extend((0..aimed).map(|kill| {
            let turn = kill / 2;
            if kill % 2 == 0 {
                let round = turn / erases.len();
                (erases[turn % erases.len()], ERASE_TURNS[round % 4])
            } else {
                let round = turn / ticks.len();
                (ticks[turn % ticks.len()], Cut::ALL[(round + 2) % 3])
            }
        }));
        let seeded = (0..).zip(kills).map(|(number, (at, cut))| {
            let order = u32::try_from(order).expect("few orders");
            let seed = order * 1000 + number;
            Kill { at, cut, seed }
        });
        seeded.collect()
    }

    /// At which operation kill number `kill` of `count` comes, of order number `order`: anywhere in its part of the whole, and the last one
    /// at the last operation.
    fn place(&self, order: usize, kill: usize, count: usize) -> usize {
        let all = self.operations.len();
        let (from, to) = (kill * all / count, (kill + 1) * all / count);
        if to == all {
            all - 1
        } else {
            from + choice(order, kill) % (to - from)
        }
    }

    /// Where in a commit operation `at` stands.
    pub(crate) fn role(&self, at: usize) -> &'static str {
        let in_commit_block = |operation: &Operation| match operation {
            Operation::Program { address } => address % self.page < COMMIT_BLOCK,
            Operation::Erase { .. } => false,
        };
        // The commit block is programmed after all records, the tick after it, and what is old is erased last.
        let commit = self.operations.iter().rposition(in_commit_block);
        let late = commit.is_some_and(|commit| at > commit);
        match self.operations[at] {
            _ if at < self.start => "start",
            Operation::Erase { .. } if late => "erase",
            Operation::Erase { .. } => "prepare",
            Operation::Program { .. } if in_commit_block(&self.operations[at]) => "commit block",
            Operation::Program { .. } if late => "tick",
            Operation::Program { .. } => "record",
        }
    }

    /// Whether operation `at` lies between the first and the last one of the order's commit.
    pub(crate) fn is_within_commit(&self, at: usize) -> bool {
        self.start < at && at + 1 < self.operations.len()
    }
}
