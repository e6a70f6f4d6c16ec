//! The commands of `host/OFFLINE.md`, run as they stand there, on a real board.

use std::fs;

use keyferry::emulate::{Board, Config, Emulator};
use keyferry_protocol::identity::DeviceId;
use keyferry_tests::board::Image;
use keyferry_tests::guide;
use keyferry_tests::tokens::Scratch;

#[test]
fn the_guide_works_as_it_stands() {
    let scratch = Scratch::new("plant");
    let folder = scratch.path("device");
    fs::create_dir(&folder).unwrap();
    let id = DeviceId([0x31; 16]);
    let board = Board::Mps2An386;
    let config = Config::new(board, Image::Default.elf(board), folder, id);
    let device = Emulator::start(&config).unwrap();
    let variables = [
        ("TOKEN", scratch.uri()),
        ("PORT", device.port().to_owned()),
        ("DEVICE", id.to_string()),
    ];
    guide::run("host/OFFLINE.md", &scratch, &variables);
}
