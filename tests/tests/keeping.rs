//! What a device keeps over its life: from an older firmware, over removals and power cuts, and on a flash that is worn out.

use keyferry::device::DeviceError;
use keyferry::device::flow::{self, Demand};
use keyferry::device::session::Session;
use keyferry::device::verify::{Standing, Statement, fingerprint};
use keyferry_firmware::platform::RootKey;
use keyferry_firmware::store::nor_fake::{Cut, Wear};
use keyferry_firmware::store::{Change, ItemId, Store};
use keyferry_protocol::identity::Challenge;
use keyferry_protocol::order::{Body, Kind, Recover};
use keyferry_protocol::proof::Proof;
use keyferry_protocol::receipt::{Refusal, State};
use keyferry_protocol::suite::UnwrapAlgorithm;
use keyferry_tests::desk::{Desk, Flash, OnDesk};
use keyferry_tests::orders::{Order, enrolment, fresh, open};
use keyferry_tests::software::{SoftAuthority, aes_key, proof_is_right, wrap};

const PAGES: usize = 8;
const NUMBER: u8 = 1;
const NONCE: Challenge = Challenge([9; 32]);
const CHALLENGE: Challenge = Challenge([4; 32]);
/// The version of the key in slot 0.
const VERSION: u32 = 5;

fn authority() -> SoftAuthority {
    SoftAuthority::new(0)
}

/// Every so-manieth operation; every one in the long run.
fn stride(short: usize) -> usize {
    if std::env::var_os("KEYFERRY_LONG").is_some() {
        1
    } else {
        short
    }
}

fn enroll(device: &OnDesk) -> Statement {
    let unwrap = UnwrapAlgorithm::P256;
    flow::enroll(&mut open(device), &authority(), unwrap, NONCE, &mut |_| {}).unwrap()
}

/// The statement as of this session.
fn at_present(statement: &Statement, session: &Session) -> Statement {
    let greeting = session.greeting();
    Statement {
        standing: Standing {
            state: greeting.state,
            counter: greeting.counter,
            challenge: greeting.challenge,
        },
        ..statement.clone()
    }
}

/// Injects the key of this number into slot 0.
fn inject(device: &OnDesk, statement: &Statement, version: u32) -> Result<(), Refusal> {
    let mut session = open(device);
    let statement = at_present(statement, &session);
    let shipment = wrap(&statement, &[aes_key(32, 1)], version);
    let sent = flow::inject(
        &mut session,
        &authority(),
        &statement,
        &shipment,
        CHALLENGE,
        &mut |_| {},
    );
    match sent {
        Ok(_) => Ok(()),
        Err(DeviceError::Refused { refusal, signed }) => {
            assert!(signed);
            Err(refusal)
        }
        Err(error) => panic!("{error}"),
    }
}

fn remove(device: &OnDesk, statement: &Statement) -> Result<Standing, DeviceError> {
    let mut session = open(device);
    let statement = at_present(statement, &session);
    flow::remove(&mut session, &authority(), &statement, &[0], &mut |_| {})
}

/// The key in slot 0 proves itself.
fn prove(device: &OnDesk, statement: &Statement) {
    let mut session = open(device);
    let statement = at_present(statement, &session);
    let key = aes_key(32, 1);
    let demands = [Demand::from((0, Proof::strongest(&key.attributes)))];
    let proofs = flow::prove(
        &mut session,
        &authority(),
        &statement,
        &demands,
        CHALLENGE,
        &mut |_| {},
    )
    .unwrap();
    assert!(proof_is_right(
        &key,
        &proofs.reports[0],
        &proofs.order,
        &CHALLENGE
    ));
}

/// A device with a key in slot 0.
fn provisioned() -> (Flash, Statement) {
    let device = OnDesk::start(Desk::new(NUMBER, PAGES));
    let statement = enroll(&device);
    inject(&device, &statement, VERSION).unwrap();
    (device.stop(), statement)
}

fn start(flash: Flash) -> OnDesk {
    OnDesk::start(Desk::with_flash(NUMBER, flash))
}

/// The store, as the device itself opens it.
fn store(flash: Flash) -> Store<Flash> {
    let mut root = RootKey::zeroed();
    root.expose_mut().fill(NUMBER ^ 0x5a);
    Store::open(flash, root)
}

fn memory(store: &mut Store<Flash>) -> Vec<u8> {
    let mut bytes = [0; 256];
    let memory = store.public(ItemId::META, &mut bytes).unwrap().unwrap();
    memory.to_vec()
}

/// The flash with its memory laid out otherwise.
fn laid_out(flash: Flash, change: impl Fn(&[u8]) -> Vec<u8>) -> Flash {
    let mut store = store(flash);
    let memory = change(&memory(&mut store));
    let put = Change::Put {
        id: ItemId::META,
        public: memory.len(),
        secret: 0,
    };
    store.begin([put]).unwrap();
    store.put(ItemId::META, &memory, None).unwrap();
    store.commit().unwrap();
    store.into_flash()
}

/// Lays the newest memory out otherwise.
type LayOut = fn(&[u8]) -> Vec<u8>;

/// The layouts that `firmware/STORE.md` lists as older: without the number of the layout, and without the epoch too.
const OLDER: [LayOut; 2] = [
    |memory| memory[1..].to_vec(),
    |memory| [&memory[1..38], &memory[42..]].concat(),
];

/// SPEC: M-23
#[test]
fn a_store_of_an_older_firmware_is_migrated_wherever_power_fails() {
    let (flash, statement) = provisioned();
    let newest = memory(&mut store(flash.clone()));
    let (mut old, mut new) = (0, 0);
    for layout in OLDER {
        let flash = laid_out(flash.clone(), layout);
        let whole = start(flash.clone()).stop();
        let operations = usize::try_from(whole.operations() - flash.operations()).unwrap();
        assert!(operations > 100, "{operations}: nothing was migrated");
        for at in (0..operations).step_by(stride(11)).chain([operations - 1]) {
            for cut in Cut::ALL {
                let told = format!("operation {at} of {operations}, {cut:?}");
                let seed = u64::try_from(at).unwrap();
                let mut flash = flash.clone();
                flash.power_on(seed);
                flash.cut_after(seed, cut);
                let mut flash = start(flash).stop();
                assert!(flash.is_off(), "{told}");
                flash.power_on(seed + 1);
                // What is there now is the one layout or the other, whole.
                let mut left = store(flash.clone());
                match memory(&mut left) {
                    memory if memory == newest => new += 1,
                    memory => {
                        assert_eq!(memory, layout(&newest), "{told}");
                        old += 1;
                    }
                }
                let device = start(flash);
                let greeting = open(&device).greeting().clone();
                let shown = (greeting.state, greeting.counter, greeting.identity);
                let expected = (State::Provisioned, 2, fingerprint(&statement.identity_key));
                assert_eq!(shown, expected, "{told}");
                if at % 5 == 0 {
                    prove(&device, &statement);
                    let lower = inject(&device, &statement, VERSION - 1);
                    assert_eq!(lower, Err(Refusal::VersionRollback), "{told}");
                }
                let flash = device.stop();
                assert_eq!(flash.misuses(), 0, "{told}");
                let after = memory(&mut store(flash));
                assert_eq!(after.len(), newest.len(), "{told}");
            }
        }
    }
    println!("migration: {old} cuts left the older layout, {new} the newer one");
    assert!(old > 0 && new > 0);
}

/// A layout of the future is not understood, and not touched.
#[test]
fn an_unknown_layout_is_quarantined_and_left_alone() {
    let (flash, _) = provisioned();
    let flash = laid_out(flash, |memory| [&[2], &memory[1..]].concat());
    let before = memory(&mut store(flash.clone()));
    let device = start(flash);
    assert_eq!(open(&device).greeting().state, State::Quarantined);
    assert_eq!(memory(&mut store(device.stop())), before);
}

/// Also where power failed in the middle of a change: it is for whoever knows the layout to finish or undo that.
///
/// SPEC: M-47
#[test]
fn a_start_in_quarantine_writes_nothing_whatever_is_left_on_flash() {
    let (flash, _) = provisioned();
    let flash = laid_out(flash, |memory| [&[2], &memory[1..]].concat());
    let mut staged = store(flash.clone());
    let change = Change::Put {
        id: ItemId::RECEIPT,
        public: 300,
        secret: 0,
    };
    staged.begin([change]).unwrap();
    staged.put(ItemId::RECEIPT, &[0x5a; 300], None).unwrap();
    let left = staged.into_flash();
    assert!(left.bytes() != flash.bytes());
    for flash in [flash, left] {
        let device = start(flash.clone());
        assert_eq!(open(&device).greeting().state, State::Quarantined);
        let now = device.stop();
        assert!(now.bytes() == flash.bytes(), "it has written");
        let work = |flash: &Flash| (flash.programs(), flash.erases().to_vec());
        assert_eq!(work(&now), work(&flash));
    }
}

/// SPEC: M-19, M-23, M-29
#[test]
fn version_floors_survive_removal_power_cuts_and_new_snapshots_and_end_with_a_wipe() {
    let (mut flash, statement) = provisioned();
    flash.power_on(0);
    let device = start(flash.clone());
    remove(&device, &statement).unwrap();
    let operations = usize::try_from(device.stop().operations()).unwrap();
    let boot = usize::try_from(start(flash.clone()).stop().operations()).unwrap();
    let (mut removed, mut held) = (0, 0);
    for at in (boot..operations)
        .step_by(stride(13))
        .chain([operations - 1])
    {
        for cut in [Cut::Half, Cut::Unstable, Cut::After] {
            let told = format!("operation {at} of {operations}, {cut:?}");
            let seed = u64::try_from(at).unwrap();
            let mut flash = flash.clone();
            flash.cut_after(seed, cut);
            let device = start(flash);
            let _ = remove(&device, &statement);
            let mut flash = device.stop();
            flash.power_on(seed + 1);
            let device = start(flash);
            let session = open(&device);
            let gone = session.greeting().counter == 3;
            drop(session);
            let same = if gone {
                removed += 1;
                Refusal::VersionRollback
            } else {
                held += 1;
                Refusal::SlotTaken
            };
            assert_eq!(inject(&device, &statement, VERSION), Err(same), "{told}");
            let lower = inject(&device, &statement, VERSION - 1);
            assert_eq!(lower, Err(Refusal::VersionRollback), "{told}");
            assert_eq!(inject(&device, &statement, VERSION + 1), Ok(()), "{told}");
        }
    }
    println!("floors: {removed} cuts after the removal, {held} before");
    assert!(removed > 0 && held > 0);

    // Starts until the store has written several snapshots of the same items.
    let device = start(flash);
    remove(&device, &statement).unwrap();
    let mut flash = device.stop();
    let erased: u32 = flash.erases().iter().sum();
    for _ in 0..200 {
        flash = start(flash).stop();
    }
    assert!(flash.erases().iter().sum::<u32>() > erased + 2);
    let device = start(flash);
    let again = inject(&device, &statement, VERSION);
    assert_eq!(again, Err(Refusal::VersionRollback));

    let mut session = open(&device);
    let present = at_present(&statement, &session);
    flow::wipe(&mut session, &authority(), &present, &mut |_| {}).unwrap();
    drop(session);
    let statement = enroll(&device);
    assert_eq!(inject(&device, &statement, 1), Ok(()));
}

/// SPEC: M-51
#[test]
fn a_worn_out_flash_is_read_and_takes_no_order() {
    let (flash, statement) = provisioned();
    for wear in Wear::ALL {
        let mut flash = flash.clone();
        flash.wear_out_after(0, wear);
        let device = start(flash);
        let header = fresh(&device, &open(&device), Kind::Lock);
        let refused = Order::new(&authority(), header, &Body::Lock).send_to(&device);
        // Where the part can still be programmed, starts are counted on for a while, and the refusal is signed.
        let signed = matches!(wear, Wear::EraseFails | Wear::StuckZeros);
        assert_eq!(
            refused.refusal(),
            Some((Refusal::Storage, signed)),
            "{wear:?}"
        );
        let mut session = open(&device);
        let greeting = session.greeting().clone();
        let shown = (greeting.state, greeting.counter, greeting.identity);
        assert_eq!(
            shown,
            (State::Provisioned, 2, fingerprint(&statement.identity_key))
        );
        let slots = flow::list(&mut session).unwrap();
        assert_eq!((slots.len(), slots[0].version), (1, VERSION));
        drop(session);
        // Nor does it take one that would have it give up what it holds.
        let public = flow::Authority::public_key(&authority()).to_vec();
        let body = Body::Recover(Recover { authority: &public });
        let recovery = Order::new(&authority(), enrolment(&open(&device)), &body);
        assert!(recovery.send_to(&device).refusal().is_some());
        // The product's own firmware has its key as before.
        let mut store = store(device.stop());
        let mut secret = [0; 32];
        let read = store.secret(ItemId::slot(0).unwrap(), &mut secret);
        assert_eq!(
            read.unwrap().unwrap(),
            &aes_key(32, 1).clear[..],
            "{wear:?}"
        );
    }
}
