//! Several stations of one computer use one registry at once.

use std::thread;

use keyferry::station::registry::{Registry, RegistryError};
use keyferry_protocol::identity::DeviceId;
use keyferry_tests::command::{Answer, keyferry};

use crate::{Book, Device, Place};

fn enrol(registry: &Registry, device: &Device) -> Result<(), RegistryError> {
    let statement = device.statement();
    let trust = keyferry::station::policy::Trust {
        policy: "open",
        reason: "the room".to_owned(),
    };
    let enrolled = keyferry::station::registry::Enrolled {
        statement: &statement,
        trust: &trust,
        serial: None,
    };
    registry.enrolled(&enrolled).map(|_| ())
}

#[test]
fn a_registry_is_begun_once_however_many_begin_it() {
    let place = Place::of(module_path!());
    thread::scope(|scope| {
        for station in 0..8 {
            let place = &place.location;
            scope.spawn(move || {
                let registry = Registry::open_at(place, None).unwrap();
                for place in 0..5 {
                    let mut device = Device::new(station * 5 + place);
                    device.keys = (station * 5 + place, station * 5 + place);
                    enrol(&registry, &device).unwrap();
                }
            });
        }
    });
    let registry = Registry::open_existing_at(&place.location, None).unwrap();
    let found = registry.devices(&Default::default(), None).unwrap();
    assert_eq!(found.len(), 40);
}

#[test]
fn of_two_that_enrol_one_id_with_different_keys_one_wins() {
    for round in 0..10 {
        let book = Book::of(module_path!());
        let outcomes: Vec<_> = thread::scope(|scope| {
            let stations: Vec<_> = [10, 20, 30]
                .into_iter()
                .map(|key| {
                    let location = &book.location;
                    scope.spawn(move || {
                        let registry = Registry::open_at(location, None).unwrap();
                        let mut device = Device::new(round);
                        device.keys = (key, key + 1);
                        enrol(&registry, &device)
                    })
                })
                .collect();
            stations.into_iter().map(|it| it.join().unwrap()).collect()
        });
        let won = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        assert_eq!(won, 1, "{outcomes:?}");
        for outcome in outcomes {
            assert!(matches!(
                outcome,
                Ok(()) | Err(RegistryError::OtherKeys { .. })
            ));
        }
    }
}

#[test]
fn processes_write_at_the_same_time_and_nothing_is_lost() {
    const RELEASED: u8 = 12;
    let book = Book::of(module_path!());
    for number in 0..RELEASED {
        book.enrol(&Device::new(number)).unwrap();
    }
    thread::scope(|scope| {
        for number in 0..RELEASED {
            let name = book.name();
            scope.spawn(move || {
                let answer = Answer::of(
                    keyferry()
                        .args(["registry", "release", "--json", "--reason", "rework"])
                        .arg("--registry")
                        .arg(name)
                        .arg(DeviceId([number; 16]).to_string()),
                );
                assert_eq!(answer.code, 0, "{answer:?}");
            });
        }
        // Meanwhile this process enrols others.
        for number in RELEASED..RELEASED + 40 {
            book.enrol(&Device::new(number)).unwrap();
        }
    });
    let found = book.registry.devices(&Default::default(), None).unwrap();
    assert_eq!(found.len(), 40);
    for number in 0..RELEASED {
        let record = book.registry.find(DeviceId([number; 16])).unwrap().unwrap();
        assert_eq!(record.released.unwrap().reason, "rework");
    }
}
