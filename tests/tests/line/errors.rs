//! Bit errors: as many as the rate says, and what they do to characters.

use keyferry_tests::line::{
    Cable, Fault, Faults, Planned, Settings, Stretches, Trigger, Way, Ways,
};

use crate::{bytes_of, cable, carry, pattern};

fn noisy(ber: f64, seed: u64) -> Cable {
    cable(|settings| {
        settings.faults.ber = ber;
        settings.seed = seed;
    })
}

#[test]
fn the_bit_error_rate_is_met() {
    // 2 000 000 bits: the standard deviation of the count is below its square root; four of them are never left by chance.
    let sent = pattern(200_000);
    let rates = [
        (1e-5, 20.0_f64, Way::Down),
        (1e-4, 200.0, Way::Up),
        (1e-3, 2_000.0, Way::Down),
        (1e-2, 20_000.0, Way::Up),
    ];
    for (ber, expected, way) in rates {
        let mut cable = noisy(ber, 1);
        let arrived = carry(&mut cable, way, &sent, 0);
        let counts = cable.counts().sum();
        let errors = counts.bit_errors as f64;
        assert!(
            (errors - expected).abs() < 4.0 * expected.sqrt(),
            "{errors} of {expected}"
        );
        assert_eq!(counts.characters, 200_000);
        assert_eq!(counts.delivered, arrived.len() as u64);
    }
}

#[test]
fn a_line_without_faults_changes_nothing() {
    let sent = pattern(100_000);
    let mut cable = Cable::new(&Settings::default());
    assert_eq!(bytes_of(&carry(&mut cable, Way::Down, &sent, 0)), sent);
    let counts = cable.counts().sum();
    assert_eq!(counts.delivered, counts.characters);
    assert_eq!((counts.bit_errors, counts.framing_errors), (0, 0));
}

#[test]
fn a_seed_is_a_run() {
    let sent = pattern(50_000);
    let run = |seed| {
        let mut cable = cable(|settings| {
            settings.seed = seed;
            settings.faults = Faults {
                ber: 1e-4,
                drop: Stretches::new(1e-3, 20),
                duplicate: Stretches::new(1e-3, 20),
                burst: Stretches::new(1e-3, 20),
                ..Faults::default()
            };
        });
        let arrived = carry(&mut cable, Way::Down, &sent, 0);
        (arrived, *cable.counts())
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}

#[test]
fn one_kind_of_fault_leaves_the_others_in_their_places() {
    let sent = pattern(50_000);
    let drops = |ber| {
        let mut cable = cable(|settings| {
            settings.faults.ber = ber;
            settings.faults.drop = Stretches::new(1e-3, 5);
            settings.seed = 3;
        });
        carry(&mut cable, Way::Down, &sent, 0);
        let counts = cable.counts().down;
        (counts.drops, counts.dropped_bytes)
    };
    assert_eq!(drops(0.0), drops(1e-3));
}

/// Where the characters of a run of good ones are right again.
fn settles(arrived: &[u8], sent: &[u8]) -> Option<usize> {
    (1..sent.len()).find(|from| arrived.ends_with(&sent[*from..]))
}

#[test]
fn data_bits_change_one_byte_and_frame_bits_may_change_more() {
    let sent = pattern(64);
    let mut lost_or_more = 0;
    let mut one_byte = 0;
    for seed in 0..2_000 {
        let mut cable = noisy(1.0 / 1_280.0, seed);
        let arrived = bytes_of(&carry(&mut cable, Way::Down, &sent, 0));
        if cable.counts().down.bit_errors != 1 {
            continue;
        }
        let differ = arrived.iter().zip(&sent).filter(|(a, b)| a != b).count();
        if arrived.len() == sent.len() && differ == 1 {
            one_byte += 1;
        } else if arrived != sent {
            lost_or_more += 1;
        }
    }
    // Eight bits of ten are data. A stop bit that reads as low leaves its own byte right, and spoils the next ones on a line without
    // pauses; a start bit that reads as high moves the receiver to another edge.
    assert!(one_byte > 300, "{one_byte}");
    assert!(lost_or_more > 50, "{lost_or_more}");
}

#[test]
fn a_receiver_finds_the_next_character_after_a_pause() {
    let burst = Planned {
        fault: Fault::Burst(20),
        ways: Ways::Down,
        when: Trigger::Byte(0),
    };
    for seed in 0..50 {
        let mut cable = cable(|settings| {
            settings.seed = seed;
            settings.faults.planned = vec![burst];
        });
        let garbage = carry(&mut cable, Way::Down, &pattern(20), 0);
        let pause = 1_000_000_000;
        let sent = pattern(300);
        let arrived = bytes_of(&carry(&mut cable, Way::Down, &sent, pause));
        assert_eq!(arrived, sent, "after {garbage:?}");
        assert_eq!(cable.counts().down.bursts, 1);
        assert!(cable.counts().down.burst_bits > 50);
    }
}

#[test]
fn a_receiver_led_astray_comes_back_without_a_pause_too() {
    let mut astray = 0;
    for seed in 0..200 {
        let mut cable = cable(|settings| {
            settings.seed = seed;
            settings.faults.planned = vec![Planned {
                fault: Fault::Burst(1),
                ways: Ways::Down,
                when: Trigger::Byte(10),
            }];
        });
        let sent = pattern(400);
        let arrived = bytes_of(&carry(&mut cable, Way::Down, &sent, 0));
        let settled = settles(&arrived, &sent).expect("the end is right again");
        assert!(settled < 200, "only after {settled} bytes");
        astray += usize::from(settled > 12);
    }
    assert!(
        astray > 10,
        "a burst led the receiver astray {astray} times"
    );
}
