//! What goes over the line while orders are delivered can be recorded.

use std::fs;

use keyferry::device::capture::Recording;
use keyferry_tests::command;

use crate::plant::{Plant, at_the_line};

#[test]
fn each_port_has_a_recording_of_its_own() {
    let plant = Plant::new();
    let devices = [1, 2].map(|number| plant.device(number));
    let mut arguments = plant.prepare("batch", &["--all"]);
    arguments.extend(["--key", "telemetry@0"]);
    plant.scratch.done(arguments);
    let powered = devices.each_ref().map(|device| device.power());
    let folder = plant.path(".");
    let deliver = |ports: &[&str], capture: &str| {
        let mut arguments = vec!["order", "deliver", "batch", "--authority", "authority.pem"];
        for port in ports {
            arguments.extend(["--port", port]);
        }
        arguments.extend(["--capture", capture]);
        at_the_line(&arguments, &folder)
    };
    let ports = powered.each_ref().map(|device| device.port());

    // Before any device is called.
    let hint = "make its folder first";
    command::refused(|| deliver(&ports, "none/line"), 2, "none/line.1", hint);
    fs::write(folder.join("line.2"), "precious").unwrap();
    let hint = "choose another name";
    command::refused(|| deliver(&ports, "line"), 2, "line.2 exists", hint);
    assert!(!folder.join("line.1").exists());
    fs::remove_file(folder.join("line.2")).unwrap();

    let delivered = command::done(&mut deliver(&ports, "line"));
    assert_eq!(delivered["delivered"], 2);
    for (port, name) in ports.iter().zip(["line.1", "line.2"]) {
        let recording = Recording::open(&folder.join(name)).unwrap();
        assert_eq!(recording.heading().port, *port);
        let answer = plant.scratch.run(["line", "decode", name]);
        assert!(answer.stdout.contains("    order"), "{answer:?}");
        assert!(answer.stdout.contains("    receipt"), "{answer:?}");
    }

    // With one port the name is taken as it is; that everything is delivered already changes nothing.
    let answer = command::Answer::of(&mut deliver(&ports[..1], "one"));
    assert_eq!(answer.code, 5, "{answer:?}");
    assert!(Recording::open(&folder.join("one")).is_ok());
}
