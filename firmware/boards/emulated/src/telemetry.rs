//! An application: what a product does with its keys once the line is behind it. At each start it sends one reading, authenticated with
//! the key that was injected under the label `telemetry`.
//!
//! The frame is 38 bytes: device id (16), number of the start (4, little-endian; it never comes twice, so no frame can be sent again by
//! somebody else), reading in hundredths of a degree (2, little-endian, signed), and AES-CMAC of these (16). It goes out as a line of text:
//! `telemetry`, a blank, and the frame in hexadecimal digits; or `no telemetry:` and why.

use core::fmt::Write as _;

use heapless::String;
use keyferry_firmware::Platform;
use keyferry_firmware::application::{KeyError, Keys};
use keyferry_firmware::platform::RootKey;

/// The label of the key.
const LABEL: &str = "telemetry";

/// Bytes that are authenticated.
const BODY: usize = 16 + 4 + 2;
/// Bytes of a frame.
const FRAME: usize = BODY + 16;

/// Longest line in bytes.
pub const LINE: usize = 128;

/// Stands for a sensor.
const HUNDREDTHS_OF_A_DEGREE: i16 = 2_150;

/// Sends the frame, and then sleeps for ever.
#[cfg(feature = "semihosting")]
pub fn send<C: crate::Chip, R: keyferry_board::uart::Registers>(
    chip: C,
    mut serial: keyferry_board::uart::Uart<R>,
) -> ! {
    use embedded_io::Write as _;

    let Ok(()) = serial.write_all(line(crate::serve::board(chip)).as_bytes());
    loop {
        keyferry_board::wake::clear();
        keyferry_board::wake::sleep();
    }
}

/// What is sent at this start of the board.
pub fn line<P: Platform>(board: P) -> String<LINE> {
    let mut line = String::<LINE>::new();
    // The line is long enough for all that is written to it.
    let _ = match frame(board) {
        Ok(frame) => line
            .write_str("telemetry ")
            .and_then(|()| frame.iter().try_for_each(|byte| write!(line, "{byte:02x}")))
            .and_then(|()| line.write_str("\n")),
        Err(error) => writeln!(line, "no telemetry: {error}"),
    };
    line
}

fn frame<P: Platform>(mut board: P) -> Result<[u8; FRAME], KeyError> {
    let mut root_key = RootKey::zeroed();
    // Without a root key no store can be opened: the zeros here fit none.
    let _ = board.root_key(&mut root_key);
    let mut keys = Keys::open(board.take_flash(), root_key)?;
    let key = keys.find(LABEL)?.slot;
    let mut frame = [0; FRAME];
    let (body, tag) = frame.split_at_mut(BODY);
    body[..16].copy_from_slice(&board.device_id().0);
    body[16..20].copy_from_slice(&keys.next_start()?.to_le_bytes());
    body[20..].copy_from_slice(&HUNDREDTHS_OF_A_DEGREE.to_le_bytes());
    keys.mac(key, body, tag)?;
    Ok(frame)
}
