//! A tray of devices in one run.

use std::fs;
use std::net::TcpListener;

use keyferry_native::Device;
use keyferry_tests::board::{Board, Image, Rig};
use keyferry_tests::command::Answer;
use keyferry_tests::led::{await_pattern, switched};
use keyferry_tests::openssl::openssl;
use rusqlite::Connection;

use crate::{Fleet, KEYS, Plant, ended};

const TEST_DEVICES: &str = "[devices]\nallow-test-devices = true\n";

fn done(plant: &Plant, ports: &[&str], more: &str) {
    let plan = plant.plan(&format!("{TEST_DEVICES}{more}"));
    let answer = plant.run(&plan, ports, &[]);
    assert_eq!(answer.code, 0, "{answer:?}");
    let last = answer.last();
    assert_eq!(last["passed"], ports.len(), "{last}");
    assert_eq!(last["keys_proved"], ports.len() * KEYS, "{last}");
    plant.assert_all_done(ports.len());
}

#[test]
fn eight_native_devices_get_five_keys_each() {
    let plant = Plant::new();
    let fleet = Fleet::new();
    let devices = fleet.start_all(8);
    let ports: Vec<_> = devices.iter().map(|device| device.port()).collect();
    done(&plant, &ports, "");

    // Once more: nobody gets a key twice, and each is known by its signature.
    let plan = plant.scratch.path("plan.toml");
    let before = plant.audit();
    let answer = plant.run(&plan, &ports, &[]);
    assert_eq!(answer.code, 0, "{answer:?}");
    assert!(
        ended(&answer).iter().all(|it| it["before"] == true),
        "{answer:?}"
    );
    let after = plant.audit();
    assert_eq!(after["keys"], before["keys"]);
    assert_eq!(after["orders"], before["orders"]);

    // The plan says later that they are to be locked.
    let plan = plant.plan(&format!("{TEST_DEVICES}[after]\nlock = true\n"));
    let answer = plant.run(&plan, &ports, &[]);
    assert_eq!(answer.code, 0, "{answer:?}");
    assert!(
        ended(&answer).iter().all(|it| it["locked"] == true),
        "{answer:?}"
    );
    assert!(
        plant
            .registry()
            .iter()
            .all(|device| device["state"] == "locked")
    );
    plant.assert_all_done(8);
}

#[test]
fn a_flash_that_was_put_back_does_not_pass_for_done() {
    let plant = Plant::new();
    let fleet = Fleet::new();
    let device = fleet.start(1);
    done(&plant, &[device.port()], "");
    let before = std::fs::read(fleet.flash(1)).unwrap();
    let plan = plant.plan(&format!("{TEST_DEVICES}[after]\nlock = true\n"));
    let answer = plant.run(&plan, &[device.port()], &[]);
    assert_eq!(answer.code, 0, "{answer:?}");
    let again = Fleet::new();
    std::fs::write(again.flash(1), before).unwrap();
    let device = again.start(1);
    let answer = plant.run(&plan, &[device.port()], &[]);
    assert_eq!(answer.code, 1, "{answer:?}");
    assert!(answer.stdout.contains("counter"), "{answer:?}");
}

#[test]
fn a_key_of_another_name_is_another_key() {
    let plant = Plant::new();
    let fleet = Fleet::new();
    let device = fleet.start(1);
    done(&plant, &[device.port()], "");
    let plan = plant.scratch.path("plan.toml");
    let text = std::fs::read_to_string(&plan).unwrap();
    // Another name, another type, another use.
    for (from, to) in [
        ("\"own aes\"", "\"other aes\""),
        ("aes-256", "aes-128"),
        ("use = \"ecdsa\"", "use = \"ecdh\""),
    ] {
        assert!(text.contains(from));
        std::fs::write(&plan, text.replacen(from, to, 1)).unwrap();
        let answer = plant.run(&plan, &[device.port()], &[]);
        assert_eq!(answer.code, 1, "{to}: {answer:?}");
        assert!(
            answer.stdout.contains("is not the plan's key"),
            "{answer:?}"
        );
        assert!(answer.stdout.contains("raise the version"), "{answer:?}");
    }
    // Nothing was made for it, and it is done by its own plan.
    std::fs::write(&plan, text).unwrap();
    let answer = plant.run(&plan, &[device.port()], &[]);
    assert_eq!(answer.code, 0, "{answer:?}");
    plant.assert_all_done(1);
}

/// SPEC of the station: a tray of eight boards of two architectures.
#[test]
fn eight_boards_of_two_architectures_get_five_keys_each() {
    let plant = Plant::new();
    let rigs: Vec<_> = (1..=8)
        .map(|seed| {
            let board = if seed % 2 == 0 {
                Board::RiscvVirt
            } else {
                Board::Mps2An386
            };
            Rig::start_on(board, Image::Default, seed)
        })
        .collect();
    let ports: Vec<_> = rigs.iter().map(Rig::port).collect();
    done(&plant, &ports, "[after]\nlock = true\n");
    // At the start of the run, and at its end.
    assert_eq!(plant.audit()["checkpoints"], 2);
    let boards = plant.registry();
    for board in ["mps2-an386", "riscv-virt"] {
        let of_board = boards.iter().filter(|device| device["board"] == board);
        assert_eq!(of_board.count(), 4, "{boards:?}");
    }
}

/// Whoever stands in front of eight boards sees which one it was, also where the board has done all that it was told.
#[test]
fn the_led_of_a_board_that_the_station_fails_blinks() {
    let plant = Plant::new();
    let rig = Rig::start(Image::Default, 33).restart_with_led_log();
    let plan = plant.plan("");
    let answer = plant.run(&plan, &[rig.port()], &[]);
    assert_eq!(answer.code, 1, "{answer:?}");
    assert!(answer.stdout.contains("is a test device"), "{answer:?}");
    await_pattern(&rig, "keyferry", &[500, 500, 500]);

    // It passes later, and is lit.
    let answer = plant.run(&plant.plan(TEST_DEVICES), &[rig.port()], &[]);
    assert_eq!(answer.code, 0, "{answer:?}");
    let lit = || switched(&rig.log()).last().map(|(_, lit)| *lit);
    std::thread::sleep(std::time::Duration::from_millis(1_500));
    assert_eq!(lit(), Some(true));
}

/// One bad port never stops another, and each failure is told with its reason and the next move.
#[test]
fn bad_ports_stop_nobody() {
    let plant = Plant::new();
    let fleet = Fleet::new();
    let devices = fleet.start_all(3);
    // Somebody who takes the call and says nothing, and a port where nobody is.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = format!(
        "tcp:{}",
        silent.local_addr().map(|it| (silent, it)).unwrap().1
    );
    let gone = {
        let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
        format!("tcp:{}", nobody.local_addr().unwrap())
    };
    let ports = [
        devices[0].port(),
        &gone,
        devices[1].port(),
        &silent,
        devices[2].port(),
    ];
    let plan = plant.plan(TEST_DEVICES);
    let answer = plant.run(&plan, &ports, &[]);
    assert_eq!(answer.code, 1, "{answer:?}");
    let mut outcomes = ended(&answer);
    outcomes.sort_by_key(|it| it["nest"].as_str().map(str::to_owned));
    for (nest, outcome) in (1..).zip(&outcomes) {
        let passes = nest % 2 == 1;
        assert_eq!(
            outcome["result"],
            if passes { "PASS" } else { "FAIL" },
            "{outcome}"
        );
        if !passes {
            assert!(!outcome["error"].as_str().unwrap().is_empty(), "{outcome}");
            assert!(!outcome["hint"].as_str().unwrap().is_empty(), "{outcome}");
        }
    }
    let last = answer.last();
    assert_eq!(last["error"], "2 of 5 devices were not done");
    plant.assert_all_done(3);

    // To people it is a table, and the reasons below it.
    let mut command = plant.scratch.command();
    command.args(["station", "run"]).arg(&plan);
    for port in [devices[0].port(), &gone] {
        command.args(["--port", port]);
    }
    let people = keyferry_tests::command::Answer::of(&mut command);
    assert_eq!(people.code, 1);
    let lines: Vec<_> = people.stdout.lines().collect();
    assert!(lines[0].starts_with("nest  result  device"), "{people:?}");
    assert!(lines[1].starts_with("1     PASS    0000"), "{people:?}");
    assert!(lines[2].starts_with("2     FAIL    -"), "{people:?}");
    assert!(people.stdout.contains("\nPASS 1\nFAIL 2\n"), "{people:?}");
    assert!(
        people.stderr.contains("1: PASS, was done before"),
        "{people:?}"
    );
}

#[test]
fn devices_that_no_policy_accepts_get_nothing() {
    let plant = Plant::new();
    let fleet = Fleet::new();
    let device = fleet.start(1);
    // A test device, and the plan does not allow them.
    let answer = plant.run(&plant.plan(""), &[device.port()], &[]);
    assert_eq!(answer.code, 1, "{answer:?}");
    let outcome = &ended(&answer)[0];
    assert!(
        outcome["hint"].as_str().unwrap().contains("[devices]"),
        "{outcome}"
    );
    assert!(plant.registry().is_empty());
    assert_eq!(plant.audit()["keys"]["wrapped"], 0);
    // Allowed, it is taken as it is: its keys were made in vain, but it obeys this station's authority.
    done(&plant, &[device.port()], "");
}

#[test]
fn limits_are_kept() {
    let plant = Plant::new();
    let fleet = Fleet::new();
    let devices = fleet.start_all(4);
    let ports: Vec<_> = devices.iter().map(|device| device.port()).collect();
    let plan = plant.plan(&format!(
        "{TEST_DEVICES}[limits]\ndevices = 3\nat-once = 2\n"
    ));
    let answer = plant.run(&plan, &ports, &[]);
    assert_eq!(answer.code, 1, "{answer:?}");
    let not_begun: Vec<_> = ended(&answer)
        .into_iter()
        .filter(|it| it["error"] == "the plan allows no more devices in one run")
        .collect();
    assert_eq!(not_begun.len(), 1, "{answer:?}");
    plant.assert_all_done(3);
    // Three that are done take no place of the fourth while they are looked at, and pass after it as well.
    let plan = plant.plan(&format!(
        "{TEST_DEVICES}[limits]\ndevices = 1\nat-once = 4\n"
    ));
    let answer = plant.run(&plan, &ports, &[]);
    assert_eq!(answer.code, 0, "{answer:?}");
    plant.assert_all_done(4);
    let fifth = fleet.start(8);
    let one_by_one = plant.plan(&format!(
        "{TEST_DEVICES}[limits]\ndevices = 1\nat-once = 1\n"
    ));
    let answer = plant.run(&one_by_one, &[fifth.port(), ports[0]], &[]);
    assert_eq!(answer.code, 0, "{answer:?}");

    let gone = {
        let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
        nobody.local_addr().unwrap().port()
    };
    let gone: Vec<_> = ["localhost", "127.0.0.1", "127.0.0.2"]
        .map(|host| format!("tcp:{host}:{gone}"))
        .to_vec();
    // Empty nests keep no device behind them from being begun.
    let limits = "[limits]\nfailures-in-a-row = 2\nat-once = 1\n";
    let plan = plant.plan(&format!("{TEST_DEVICES}{limits}"));
    let errors = |answer: &Answer| -> Vec<String> {
        let ended = ended(answer);
        ended.iter().map(|it| it["error"].to_string()).collect()
    };
    let answer = plant.run(&plan, &[&gone[0], &gone[1], &gone[2], ports[3]], &[]);
    let told = errors(&answer);
    assert!(told[2].contains("tcp:127.0.0.2"), "{told:?}");
    assert_eq!(told[3], "null", "{told:?}");
    // Devices that fail do: these are for tests.
    let blank = [5, 6, 7].map(|number| fleet.start(number));
    let ports: Vec<_> = blank.iter().map(|device| device.port()).collect();
    let told = errors(&plant.run(&plant.plan(limits), &ports, &[]));
    assert!(told[1].contains("test"), "{told:?}");
    assert!(told[2].contains("too many devices failed"), "{told:?}");
}

/// No device is enrolled that could not get its keys.
#[test]
fn suites_that_the_token_cannot_do_are_told_before_a_device_is_touched() {
    let plant = Plant::new();
    let plan = plant.plan(TEST_DEVICES);
    let text = std::fs::read_to_string(&plan).unwrap();
    // SoftHSM knows no key derivation after the agreement.
    let text = text.replace(
        "[order]\n",
        "[order]\nsuites = [\"ecdh-p256-x963-sha256\"]\n",
    );
    std::fs::write(&plan, text).unwrap();
    let fleet = Fleet::new();
    let answer = plant.run(&plan, &[fleet.start(1).port()], &[]);
    assert_eq!(answer.code, 3, "{answer:?}");
    let told = "none of the suites by which the plan lets keys travel (ecdh-p256-x963-sha256)";
    assert!(answer.stdout.contains(told), "{answer:?}");
    assert!(plant.registry().is_empty());
}

#[test]
fn labels_and_devices_are_not_mixed_up() {
    let plant = Plant::new();
    let fleet = Fleet::new();
    let devices = fleet.start_all(2);
    let ports: Vec<_> = devices.iter().map(|device| device.port()).collect();
    let plan = plant.plan("[devices]\nallow-test-devices = true\nserials = true\n");
    let run = |text: &str| {
        std::fs::write(plant.scratch.path("scanned.txt"), text).unwrap();
        plant.run(&plan, &ports, &["--serials", "scanned.txt"])
    };
    // Not without them, and each once.
    assert_eq!(plant.run(&plan, &ports, &[]).code, 2);
    assert_eq!(run("1 SN-1\n2 SN-1\n").code, 2);
    assert!(!plant.scratch.path("station.journal").exists());
    let answer = run("1 SN-1\n");
    assert_eq!(answer.code, 1);
    let told = answer
        .stdout
        .contains("no serial number was given for nest '2'");
    assert!(told, "{answer:?}");
    // Another device with the label of the first one.
    let answer = run("1 SN-1\n2 SN-1 \n");
    assert_eq!(answer.code, 2, "{answer:?}");
    let answer = run("1 SN-9\n2 SN-2\n");
    assert_eq!(answer.code, 1);
    assert!(
        answer
            .stdout
            .contains("has the serial number 'SN-1', and 'SN-9' was given"),
        "{answer:?}"
    );
    let answer = run("1 SN-2\n2 SN-1\n");
    assert_eq!(answer.code, 1);
    for (serial, holder, other) in [("SN-1", 1, 2), ("SN-2", 2, 1)] {
        let words = format!(
            "serial number '{serial}' is device {holder:032x}'s already, and this is device {other:032x}"
        );
        assert!(answer.stdout.contains(&words), "{words}: {answer:?}");
    }
    let answer = run("1 SN-1\n2 SN-2\n");
    assert_eq!(answer.code, 0, "{answer:?}");
    let registry = plant.registry();
    let serials: Vec<_> = registry
        .iter()
        .map(|it| it["serial"].as_str().unwrap())
        .collect();
    assert_eq!(serials, ["SN-1", "SN-2"]);
}

/// The label is in the device's certificate as well, by which a cloud knows it.
#[test]
fn a_label_is_the_serial_number_of_the_certificate() {
    let plant = Plant::new();
    let ca = plant.scratch.path("ca.pem");
    let create = ["ca", "init", "--create", "--label", "ca", "--out"];
    plant.scratch.done(create.into_iter().chain(ca.to_str()));
    let plan = plant.plan(
        "[devices]\nallow-test-devices = true\nserials = true\n[certificates]\nkey = \"ca\"\nca = \"ca.pem\"\n",
    );
    let fleet = Fleet::new();
    let devices = fleet.start_all(2);
    let ports: Vec<_> = devices.iter().map(|device| device.port()).collect();
    fs::write(plant.scratch.path("scanned.txt"), "1 SN-7\n2 SN-4\n").unwrap();
    let answer = plant.run(&plan, &ports, &["--serials", "scanned.txt"]);
    assert_eq!(answer.code, 0, "{answer:?}");
    let books = Connection::open(plant.scratch.path("plant.db")).unwrap();
    let find = |id: &str| -> Vec<u8> {
        let sql = "SELECT certificate FROM devices WHERE device = ?1";
        books.query_row(sql, [id], |row| row.get(0)).unwrap()
    };
    for (number, label) in [(1, "SN-7"), (2, "SN-4")] {
        let der = find(&format!("{number:032x}"));
        let words = [
            "x509", "-inform", "DER", "-noout", "-subject", "-nameopt", "RFC2253",
        ];
        let subject = String::from_utf8(openssl(&words, &der)).unwrap();
        assert_eq!(
            subject.trim(),
            format!("subject=serialNumber={label},CN=native")
        );
    }
}

/// A device that was done before anybody scanned labels gets the one that it passes with, and no other device does.
#[test]
fn a_label_that_is_scanned_later_is_the_devices_own_from_then_on() {
    let plant = Plant::new();
    let unlabelled = "[devices]\nallow-test-devices = true\n";
    let plan = plant.plan(unlabelled);
    let fleet = Fleet::new();
    let devices = fleet.start_all(2);
    let run = |device: &Device, serials: Option<&str>| {
        let more = match serials {
            Some(label) => {
                fs::write(plant.scratch.path("scanned.txt"), format!("1 {label}\n")).unwrap();
                &["--serials", "scanned.txt"][..]
            }
            None => &[],
        };
        plant.run(&plan, &[device.port()], more)
    };
    assert_eq!(run(&devices[0], None).code, 0);
    let text = fs::read_to_string(&plan).unwrap();
    let labelled = text.replacen(unlabelled, &format!("{unlabelled}serials = true\n"), 1);
    assert_ne!(text, labelled);
    fs::write(&plan, labelled).unwrap();
    for _ in 0..2 {
        let answer = run(&devices[0], Some("SN-5"));
        assert_eq!(answer.code, 0, "{answer:?}");
        let ended = ended(&answer).remove(0);
        assert_eq!(
            (&ended["before"], &ended["serial"]),
            (&true.into(), &"SN-5".into())
        );
    }
    let answer = run(&devices[1], Some("SN-5"));
    assert_eq!(answer.code, 1, "{answer:?}");
    assert_eq!(run(&devices[1], Some("SN-6")).code, 0);
    plant.assert_all_done(2);
}
