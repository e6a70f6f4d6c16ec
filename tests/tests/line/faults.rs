//! Each fault really happens, where it was planned or as often as its rate says, and is counted.

use keyferry_tests::line::{
    Cable, Counts, Fault, Faults, MILLISECOND, Nanos, Planned, SECOND, Spells, Stretches, Trigger,
    Way, Ways, character_time,
};

use crate::{bytes_of, cable, carry, pattern};

fn planned(fault: Fault, ways: Ways, when: Trigger) -> Cable {
    let planned = Planned { fault, ways, when };
    cable(|settings| settings.faults.planned = vec![planned])
}

fn random(faults: Faults, seed: u64) -> Cable {
    cable(|settings| {
        settings.faults = faults;
        settings.seed = seed;
    })
}

#[test]
fn a_stretch_is_lost() {
    let sent = pattern(100);
    let mut cable = planned(Fault::Drop(5), Ways::Up, Trigger::Byte(10));
    assert_eq!(bytes_of(&carry(&mut cable, Way::Down, &sent, 0)), sent);
    let arrived = carry(&mut cable, Way::Up, &sent, SECOND);
    assert_eq!(bytes_of(&arrived), [&sent[..10], &sent[15..]].concat());
    // What is lost has taken its time on the wire.
    let (last, _) = arrived[94];
    assert_eq!(last, SECOND + 100 * character_time(115_200));
    let counts = cable.counts();
    assert_eq!((counts.up.drops, counts.up.dropped_bytes), (1, 5));
    assert_eq!(counts.down.drops, 0);
}

#[test]
fn a_stretch_is_sent_twice() {
    let sent = pattern(100);
    let mut cable = planned(Fault::Duplicate(4), Ways::Down, Trigger::Byte(9));
    let arrived = bytes_of(&carry(&mut cable, Way::Down, &sent, 0));
    assert_eq!(arrived, [&sent[..10], &sent[6..10], &sent[10..]].concat());
    let counts = cable.counts().down;
    assert_eq!((counts.duplicates, counts.duplicated_bytes), (1, 4));
    assert_eq!(counts.characters, 104);
}

#[test]
fn a_burst_spoils_a_stretch() {
    let sent = pattern(100);
    let mut cable = planned(Fault::Burst(8), Ways::Both, Trigger::Byte(20));
    let arrived = bytes_of(&carry(&mut cable, Way::Up, &sent, 0));
    assert_eq!(arrived[..20], sent[..20]);
    assert_ne!(arrived[20..], sent[20..]);
    let counts = cable.counts();
    assert_eq!(counts.up.bursts, 1);
    // 80 bits, each inverted or not as a coin falls.
    assert!((20..60).contains(&counts.up.burst_bits), "{counts:?}");
    assert_eq!(counts.down.bursts, 0);
}

/// The longest pause between two bytes.
fn pause(arrived: &[(Nanos, u8)]) -> Nanos {
    let pauses = arrived.windows(2).map(|pair| pair[1].0 - pair[0].0);
    pauses.max().unwrap_or(0)
}

#[test]
fn a_stall_holds_bytes_back_and_loses_none() {
    let sent = pattern(100);
    let length = 300 * MILLISECOND;
    for when in [Trigger::Byte(50), Trigger::Time(MILLISECOND)] {
        let mut cable = planned(Fault::Stall(length), Ways::Both, when);
        let arrived = carry(&mut cable, Way::Down, &sent, 0);
        assert_eq!(bytes_of(&arrived), sent);
        assert_eq!(pause(&arrived), length + character_time(115_200));
        assert_eq!(cable.counts().down.stalls, 1);
        // The other direction had nothing to hold back.
        assert_eq!(cable.counts().up.stalls, 0);
    }
}

#[test]
fn a_stall_of_both_ways_holds_both() {
    for (ways, held) in [(Ways::Both, true), (Ways::Down, false)] {
        let mut cable = planned(Fault::Stall(SECOND), ways, Trigger::Byte(0));
        cable.write(Way::Down, b"a", 0);
        let up = carry(&mut cable, Way::Up, b"b", 0);
        assert_eq!(up[0].0 > SECOND, held, "{up:?}");
        assert_eq!(cable.counts().up.stalls, u64::from(held));
        assert_eq!(cable.counts().down.stalls, 1);
        let mut bytes = [0; 4];
        assert_eq!(cable.read(Way::Down, &mut bytes, 2 * SECOND), 1);
    }
}

#[test]
fn a_half_open_line_is_dead_one_way_only() {
    let sent = pattern(100);
    let character = character_time(115_200);
    let mut cable = planned(
        Fault::Dead(20 * character),
        Ways::Up,
        Trigger::Time(30 * character),
    );
    assert_eq!(cable.write(Way::Down, &sent, 0), 100);
    let up = bytes_of(&carry(&mut cable, Way::Up, &sent, 0));
    assert_eq!(up, [&sent[..30], &sent[50..]].concat());
    let mut down = [0; 200];
    assert_eq!(cable.read(Way::Down, &mut down, SECOND), 100);
    let counts = cable.counts();
    assert_eq!((counts.up.dead_spells, counts.up.dead_bytes), (1, 20));
    assert_eq!((counts.down.dead_spells, counts.down.dead_bytes), (0, 0));
}

#[test]
fn a_fault_that_meets_no_byte_is_not_counted() {
    let mut cable = planned(Fault::Dead(SECOND), Ways::Both, Trigger::Byte(0));
    carry(&mut cable, Way::Down, b"a", 0);
    let later = carry(&mut cable, Way::Up, b"b", 2 * SECOND);
    assert_eq!(bytes_of(&later), b"b");
    assert_eq!(cable.counts().down.dead_spells, 1);
    assert_eq!(cable.counts().up.dead_spells, 0);
}

/// Whether a count is what this rate gives in `trials`: within four standard deviations.
fn fits(count: u64, rate: f64, trials: f64) -> bool {
    let expected = rate * trials;
    (count as f64 - expected).abs() < 4.0 * expected.sqrt()
}

#[test]
fn random_faults_come_as_often_as_their_rates_say() {
    let faults = Faults {
        drop: Stretches::new(1e-3, 9),
        duplicate: Stretches::new(2e-3, 9),
        burst: Stretches::new(5e-4, 3),
        ..Faults::default()
    };
    let sent = pattern(200_000);
    for way in Way::ALL {
        let mut cable = random(faults.clone(), 5);
        carry(&mut cable, way, &sent, 0);
        let counts = cable.counts().sum();
        assert!(fits(counts.drops, 1e-3, 2e5), "{counts:?}");
        assert!(fits(counts.duplicates, 2e-3, 2e5), "{counts:?}");
        assert!(fits(counts.bursts, 5e-4, 2e5), "{counts:?}");
        // Lengths from 1 to 9: five on average.
        let mean = counts.duplicated_bytes as f64 / counts.duplicates as f64;
        assert!((4.5..5.5).contains(&mean), "{mean}");
        let mean = counts.dropped_bytes as f64 / counts.drops as f64;
        assert!((4.0..5.5).contains(&mean), "{mean}");
    }
}

#[test]
fn random_stalls_and_dead_lines_hit_both_directions() {
    let faults = Faults {
        stall: Spells::new(2e-4, MILLISECOND),
        dead: Spells::new(2e-4, MILLISECOND),
        ..Faults::default()
    };
    let mut cable = random(faults, 11);
    let sent = pattern(100);
    let mut buffer = [0; 200];
    for turn in 0..1_000 {
        let now = turn * SECOND / 10;
        cable.write(Way::Down, &sent, now);
        cable.write(Way::Up, &sent[..16], now);
        for way in Way::ALL {
            while cable.read(way, &mut buffer, now + SECOND / 10) > 0 {}
        }
    }
    let Counts { down, up, .. } = *cable.counts();
    for tally in [down, up] {
        assert!(tally.stalls > 0, "{tally:?}");
        assert!(tally.dead_spells > 0, "{tally:?}");
        assert!(tally.dead_bytes >= tally.dead_spells, "{tally:?}");
        // Every character is accounted for: nothing else has been lost.
        assert_eq!(tally.delivered + tally.dead_bytes, tally.characters);
    }
}

#[test]
fn counts_add_up_and_can_be_printed() {
    let mut cable = planned(Fault::Drop(2), Ways::Down, Trigger::Byte(0));
    carry(&mut cable, Way::Down, b"abc", 0);
    let one = *cable.counts();
    let mut two = one;
    two += one;
    assert_eq!(two.down.dropped_bytes, 4);
    assert_eq!(two.to_json()["down"]["dropped_bytes"], 4);
    assert_eq!(two.sum(), two.down + two.up);
}
