//! A device's whole life: keys injected, replaced, removed and wiped, and then a second life. After each order, and after a restart,
//! everything that the device leaves is searched for all keys that ever were in it, its own among them.

use embedded_storage::nor_flash::NorFlash;
use keyferry::device::flow;
use keyferry::device::session::Session;
use keyferry::device::verify::Statement;
use keyferry_firmware::platform::RootKey;
use keyferry_firmware::store::nor_fake::NorFake;
use keyferry_firmware::store::{Condition, ItemId, MAX_SECRET, Store};
use keyferry_protocol::identity::Challenge;
use keyferry_protocol::message::Request;
use keyferry_protocol::suite::UnwrapAlgorithm;
use keyferry_tests::board::{Image, QemuBoard};
use keyferry_tests::search::{Finding, Search};
use keyferry_tests::software::{SoftKey, aes_key, hmac_key, p256_key, wrap_under};

use super::{Visit, add_keys, look_everywhere, quiet};

keyferry_tests::on_every_qemu_board!(
    no_key_that_ever_was_in_a_device_is_left_after_any_kind_of_order,
    an_early_unwrap_key_is_in_ram_until_the_enroll_and_nowhere_after_it,
);

const SEED: u8 = 7;

/// The public exponent of every RSA key, as the store has it.
const EXPONENT: [u8; 4] = 65_537_u32.to_le_bytes();

/// Adds the secrets that stand sealed in the device's store: what its fuses open.
fn add_stored<F: NorFlash>(search: &mut Search, flash: F, when: &str) -> usize {
    let mut root = RootKey::zeroed();
    root.expose_mut().fill(SEED);
    let mut store = Store::open(flash, root);
    assert_eq!(store.condition(), Condition::Ready);
    let ids: Vec<ItemId> = store.ids().collect();
    let mut count = 0;
    for id in ids {
        let mut secret = [0; MAX_SECRET];
        if let Some(secret) = store.secret(id, &mut secret).expect("it opens") {
            // An RSA key is e ‖ p ‖ q, and its exponent is no secret.
            let secret = secret.strip_prefix(&EXPONENT).unwrap_or(secret);
            search.add(&format!("item {} {when}", id.number()), secret);
            count += 1;
        }
    }
    count
}

/// As [`add_stored`], for the store in the flash of a board.
fn add_stored_on(board: QemuBoard, search: &mut Search, flash: &[u8], when: &str) -> usize {
    fn area<const PAGE: usize>(pages: usize, bytes: &[u8]) -> NorFake<4, PAGE> {
        let mut flash = NorFake::new(pages);
        for (at, byte) in bytes[..pages * PAGE].iter().enumerate() {
            flash.corrupt(at, *byte);
        }
        flash
    }
    match board {
        QemuBoard::Mps2An386 => add_stored(search, area::<4096>(32, flash), when),
        QemuBoard::RiscvVirt => add_stored(search, area::<{ 256 * 1024 }>(4, flash), when),
    }
}

/// The device and all that was ever in it.
struct Life {
    board: QemuBoard,
    visit: Visit,
    search: Search,
    found: Vec<Finding>,
    /// Key-encryption keys so far.
    keks: u8,
}

impl Life {
    /// Injects keys, and has all of them and what the device makes of them known.
    fn inject(&mut self, keys: &[SoftKey], version: u32, when: &str) {
        let (mut session, statement) = self.visit.enroll();
        add_keys(&mut self.search, keys);
        self.keks += 1;
        let (shipment, kek) = wrap_under(&statement, keys, version, self.keks);
        self.search.add(&format!("KEK {}", self.keks), &kek);
        flow::inject(
            &mut session,
            &self.visit.authority,
            &statement,
            &shipment,
            Challenge([3; 32]),
            &mut quiet,
        )
        .unwrap();
        drop(session);
        self.look(when);
    }

    /// Does another order.
    fn order(&mut self, when: &str, order: impl FnOnce(&Visit, &mut Session, &Statement)) {
        let (mut session, statement) = self.visit.enroll();
        order(&self.visit, &mut session, &statement);
        drop(session);
        self.look(when);
    }

    /// Searches everything, now and after a restart.
    fn look(&mut self, when: &str) {
        let flash = self.visit.rig.flash();
        let stored = add_stored_on(self.board, &mut self.search, &flash, when);
        println!("{}, {when}: {stored} secrets stored", self.board.name());
        let rig = &mut self.visit.rig;
        self.found
            .extend(look_everywhere(&mut self.search, rig, when));
    }

    fn restart(mut self, when: &str) -> Self {
        self.visit.rig = self.visit.rig.restart();
        drop(self.visit.rig.session());
        self.look(when);
        self
    }
}

fn no_key_that_ever_was_in_a_device_is_left_after_any_kind_of_order(board: QemuBoard) {
    let mut life = Life {
        board,
        visit: Visit::new(board, Image::Default, UnwrapAlgorithm::P256, SEED),
        search: Search::default(),
        found: Vec::new(),
        keks: 0,
    };
    let keys = |number| {
        [
            aes_key(32, number),
            hmac_key(number + 1),
            p256_key(number + 2),
        ]
    };
    life.inject(&keys(10), 1, "injected");
    life.inject(&keys(20), 2, "replaced");
    life.order("one removed", |visit, session, statement| {
        flow::remove(session, &visit.authority, statement, &[1], &mut quiet).unwrap();
    });
    life = life.restart("removed, and restarted");
    life.order("wiped", |visit, session, statement| {
        flow::wipe(session, &visit.authority, statement, &mut quiet).unwrap();
    });
    let flash = life.visit.rig.flash();
    let stored = add_stored_on(board, &mut life.search, &flash, "wiped");
    assert_eq!(stored, 0, "a wiped device holds no secret, sealed or not");
    life = life.restart("wiped, and restarted");
    life.inject(&keys(30), 1, "injected in a second life");
    life = life.restart("injected in a second life, and restarted");

    println!(
        "{}: {} windows in {} bytes",
        board.name(),
        life.search.windows(),
        life.search.searched()
    );
    // Ten keys and four key-encryption keys at least, and each has its windows in every form.
    assert!(life.search.windows() > 4 * 10 * 9);
    assert!(
        life.found.is_empty(),
        "{} found, among them:\n{}",
        life.found.len(),
        life.found[..life.found.len().min(40)].join("\n")
    );
}

/// Before the Enroll the primes can only be in RAM; that they are found there shows that the search can find them.
fn an_early_unwrap_key_is_in_ram_until_the_enroll_and_nowhere_after_it(board: QemuBoard) {
    let mut visit = Visit::new(board, Image::Default, UnwrapAlgorithm::Rsa2048, SEED);
    visit.rig = visit.rig.restart_with_words(&["early=rsa-2048"]);
    let mut session = visit.rig.session();
    // Each is answered between two steps of the search: with this seed more than it takes.
    for number in 0..150_u16 {
        let bytes = number.to_be_bytes();
        session
            .exchange(&Request::Echo { bytes: &bytes }, &mut quiet)
            .unwrap();
    }
    drop(session);
    let (ram, files) = (visit.rig.ram(), visit.rig.files());
    drop(visit.enroll());

    let mut search = Search::default();
    let flash = visit.rig.flash();
    let stored = add_stored_on(board, &mut search, &flash, "of the enrolled device");
    assert_eq!(stored, 2, "an unwrap key and an identity key");
    assert!(!search.look("waiting: RAM", &ram).is_empty());
    let mut found = Vec::new();
    for (name, bytes) in files {
        found.extend(search.look(&format!("waiting: {name}"), &bytes));
    }
    found.extend(look_everywhere(&mut search, &mut visit.rig, "enrolled"));
    visit.rig = visit.rig.restart();
    drop(visit.rig.session());
    found.extend(look_everywhere(&mut search, &mut visit.rig, "restarted"));
    assert!(found.is_empty(), "{}:\n{}", found.len(), found.join("\n"));
}
