//! A plant with a token, and devices that run in QEMU, each in a folder of its own.

use std::path::{Path, PathBuf};
use std::process::Command;

use keyferry::emulate::{Board, Config, Emulator, Entropy};
use keyferry::station::registry::{Registry, SlotState};
use keyferry_protocol::identity::DeviceId;
use keyferry_tests::board::Image;
use keyferry_tests::command::{self, Answer};
use keyferry_tests::tokens::Scratch;
use serde_json::Value;

/// The plant.
pub(crate) struct Plant {
    pub(crate) scratch: Scratch,
}

/// A device that is switched off unless [`Device::power`] is held.
pub(crate) struct Device {
    config: Config,
    pub(crate) id: DeviceId,
}

impl Device {
    /// Switches it on.
    pub(crate) fn power(&self) -> Emulator {
        Emulator::start(&self.config).expect("the device starts")
    }
}

/// The arguments that every command at the plant's HSM has.
const BOOKS: [&str; 6] = [
    "--authority",
    "authority",
    "--registry",
    "registry.db",
    "--audit",
    "audit.log",
];

impl Plant {
    /// A token with an authority, an audit key, a key to keep others under, and four keys for devices; and an audit log.
    pub(crate) fn new() -> Self {
        let scratch = Scratch::new("plant");
        for (label, key_type, usage) in [
            ("authority", "p-256", "sign"),
            ("auditor", "p-256", "sign"),
            ("keeper", "aes-256", "keep"),
        ] {
            scratch.done([
                "key", "create", "--label", label, "--type", key_type, "--usage", usage,
            ]);
        }
        for (label, key_type) in [
            ("telemetry", "aes-128"),
            ("config", "hmac-256"),
            ("boot", "p-256"),
            ("update", "aes-256"),
        ] {
            scratch.done([
                "key",
                "create",
                "--label",
                label,
                "--type",
                key_type,
                "--extractable",
            ]);
        }
        scratch.done([
            "key",
            "public",
            "--label",
            "authority",
            "--out",
            "authority.pem",
        ]);
        let plant = Self { scratch };
        plant.scratch.done([
            "audit",
            "create",
            "audit.log",
            "--station",
            "plant",
            "--authority",
            "authority",
            "--audit-key",
            "auditor",
        ]);
        plant
    }

    /// A new device, enrolled.
    pub(crate) fn device(&self, number: u8) -> Device {
        let folder = self.scratch.path(&format!("device-{number}"));
        std::fs::create_dir(&folder).expect("a new folder");
        std::fs::write(folder.join("fuse.bin"), [number; 32]).expect("a new file");
        let id = DeviceId([number; 16]);
        let board = Board::Mps2An386;
        let mut config = Config::new(board, Image::Default.elf(board), folder, id);
        config.entropy = Entropy::Seed([number; 32]);
        let device = Device { config, id };
        let powered = device.power();
        let mut arguments = vec![
            "device",
            "enroll",
            "--port",
            powered.port(),
            "--policy",
            "open",
            "--allow-test-devices",
            "--unwrap",
            "p-256",
        ];
        arguments.extend(BOOKS);
        self.scratch.done(arguments);
        powered.kill();
        device
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.scratch.path(name)
    }

    /// The arguments of `order prepare`, with these besides.
    pub(crate) fn prepare<'a>(&self, out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
        let mut arguments = vec![
            "order",
            "prepare",
            "--policy",
            "registry",
            "--allow-test-devices",
            "--out",
            out,
        ];
        arguments.extend(BOOKS);
        arguments.extend(more);
        arguments
    }

    /// Brings receipts back.
    pub(crate) fn import(&self, batch: &str) -> Answer {
        let mut command = self.scratch.command();
        command.args(["--json", "audit", "import", batch]);
        Answer::of(command.args(BOOKS))
    }

    /// As [`Plant::import`], expecting it to do its job.
    pub(crate) fn imported(&self, batch: &str) -> Value {
        let answer = self.import(batch);
        assert_eq!(answer.code, 0, "{answer:?}");
        answer.last()
    }

    /// What `audit verify` says, with the public keys from elsewhere.
    pub(crate) fn verified(&self) -> Value {
        self.scratch.done([
            "audit",
            "verify",
            "audit.log",
            "--authority",
            "authority.pem",
        ])
    }

    pub(crate) fn registry(&self) -> Registry {
        Registry::open_existing(&self.path("registry.db")).expect("the registry")
    }

    /// How many keys the registry has in this state.
    pub(crate) fn slots(&self, devices: &[Device], state: SlotState) -> usize {
        let registry = self.registry();
        let slots = devices
            .iter()
            .flat_map(|device| registry.slots(device.id).expect("the registry"));
        slots.filter(|slot| slot.state == state).count()
    }
}

/// A command at a line: no token, nothing that could lead to one.
pub(crate) fn at_the_line(arguments: &[&str], folder: &Path) -> Command {
    let mut command = command::keyferry();
    command
        .env("SOFTHSM2_CONF", "/nowhere/softhsm2.conf")
        .current_dir(folder)
        .args(arguments);
    command
}

/// Delivers to these ports, at the line.
pub(crate) fn deliver(folder: &Path, batch: &str, ports: &[&str]) -> Answer {
    let mut arguments = vec![
        "--json",
        "order",
        "deliver",
        batch,
        "--authority",
        "authority.pem",
    ];
    for port in ports {
        arguments.extend(["--port", port]);
    }
    Answer::of(&mut at_the_line(&arguments, folder))
}
