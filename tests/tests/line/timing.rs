//! Rates, latencies, the adapter's timer, the system's buffer.

use keyferry_tests::line::{
    Adapter, Cable, End, MILLISECOND, SECOND, Settings, Way, character_time,
};

use crate::{bytes_of, cable, carry, pattern};

#[test]
fn a_byte_takes_ten_bit_times() {
    for baud in [9_600, 115_200, 921_600, 3_000_000] {
        for way in Way::ALL {
            let mut cable = cable(|settings| {
                settings.station_baud = baud;
                settings.device_baud = baud;
            });
            let sent = pattern(1_000);
            let arrived = carry(&mut cable, way, &sent, 0);
            assert_eq!(bytes_of(&arrived), sent, "{way:?} at {baud}");
            let (last, _) = arrived[999];
            let exact = 1_000.0 * 10.0 * SECOND as f64 / f64::from(baud);
            let ratio = last as f64 / exact;
            assert!((1.0..1.0004).contains(&ratio), "{ratio} at {baud}");
        }
    }
}

#[test]
fn both_directions_carry_at_once() {
    let mut cable = Cable::new(&Settings::default());
    let sent = pattern(100);
    assert_eq!(cable.write(Way::Down, &sent, 0), 100);
    let up = carry(&mut cable, Way::Up, &sent, 0);
    let (last, _) = up[99];
    let mut down = [0; 200];
    assert_eq!(cable.read(Way::Down, &mut down, last), 100);
    assert_eq!(down[..100], sent);
    assert_eq!(bytes_of(&up), sent);
}

#[test]
fn latency_comes_on_top() {
    let mut cable = cable(|settings| {
        settings.down_latency = 3 * MILLISECOND;
        settings.up_latency = 5 * MILLISECOND;
    });
    let character = character_time(115_200);
    let down = carry(&mut cable, Way::Down, b"a", 0);
    assert_eq!(down, [(3 * MILLISECOND + character, b'a')]);
    let later = SECOND;
    let up = carry(&mut cable, Way::Up, b"b", later);
    assert_eq!(up, [(later + 5 * MILLISECOND + character, b'b')]);
}

#[test]
fn an_adapter_waits_for_a_packet_or_its_timer() {
    let mut cable = cable(|settings| settings.adapter = Some(Adapter::SLOW));
    let character = character_time(115_200);
    let sent = pattern(62 + 10);
    let arrived = carry(&mut cable, Way::Up, &sent, 0);
    assert_eq!(bytes_of(&arrived), sent);
    let (full, rest) = arrived.split_at(62);
    let full_at = 62 * character;
    assert!(full.iter().all(|(at, _)| *at == full_at), "{full:?}");
    let due = 63 * character + 16 * MILLISECOND;
    assert!(rest.iter().all(|(at, _)| *at == due), "{rest:?}");

    // The other direction does not know it.
    let start = SECOND;
    let down = carry(&mut cable, Way::Down, b"x", start);
    assert_eq!(down, [(start + character, b'x')]);
}

#[test]
fn the_timer_runs_from_the_first_byte() {
    let mut cable = cable(|settings| settings.adapter = Some(Adapter::SLOW));
    let character = character_time(115_200);
    cable.write(Way::Up, b"a", 0);
    let due = character + 16 * MILLISECOND;
    cable.write(Way::Up, b"b", 10 * MILLISECOND);
    let mut bytes = [0; 8];
    assert_eq!(cable.read(Way::Up, &mut bytes, due - 1), 0);
    assert_eq!(cable.next(), Some(due));
    assert_eq!(cable.read(Way::Up, &mut bytes, due), 2);
}

#[test]
fn a_write_takes_what_fits() {
    let mut cable = cable(|settings| settings.system_buffer = 100);
    let sent = pattern(300);
    // The first is on the wire at once.
    assert_eq!(cable.write(Way::Down, &sent, 0), 100);
    assert_eq!(cable.room(Way::Down), 1);
    let character = character_time(115_200);
    assert_eq!(cable.write(Way::Down, &sent[100..], 10 * character), 1 + 10);
    assert_eq!(cable.room(Way::Down), 0);
}

#[test]
fn another_rate_brings_garbage_and_the_same_rate_ends_it() {
    let sent = pattern(500);
    for (station, device) in [(115_200, 921_600), (921_600, 115_200), (115_200, 57_600)] {
        let mut cable = cable(|settings| {
            settings.station_baud = station;
            settings.device_baud = device;
        });
        for way in Way::ALL {
            let arrived = bytes_of(&carry(&mut cable, way, &sent, 0));
            assert_ne!(arrived, sent);
            let same = arrived.iter().zip(&sent).filter(|(a, b)| a == b).count();
            assert!(same < 50, "{same} bytes are right at {station}/{device}");
            assert!(!arrived.is_empty());
        }
        let now = 10 * SECOND;
        cable.set_baud(End::Station, device, now);
        assert_eq!(cable.baud(End::Station), device);
        for (way, start) in [(Way::Down, now), (Way::Up, now + 10 * SECOND)] {
            assert_eq!(bytes_of(&carry(&mut cable, way, &sent, start)), sent);
        }
    }
}

#[test]
fn clocks_may_differ_a_little() {
    // 8N1 stands less than half a bit in nine and a half: about 5 %.
    let sent = pattern(2_000);
    for (device, stands) in [(113_000, true), (118_000, true), (122_500, false)] {
        let mut cable = cable(|settings| settings.device_baud = device);
        let arrived = bytes_of(&carry(&mut cable, Way::Down, &sent, 0));
        assert_eq!(arrived == sent, stands, "{device}");
    }
}
