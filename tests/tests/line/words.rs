//! Faults as people write them.

use keyferry_tests::line::{
    Fault, MILLISECOND, Planned, SECOND, SpellWord, Spells, StretchWord, Stretches, Trigger, Ways,
    WordError, Words, rate, time,
};

fn stretch(word: &str) -> StretchWord {
    word.parse().unwrap()
}

fn spell(word: &str) -> SpellWord {
    word.parse().unwrap()
}

#[test]
fn words_mean_faults() {
    let words = Words {
        ber: 1e-5,
        drop: vec![stretch("1e-4:20"), stretch("5@100")],
        duplicate: vec![stretch("0.001")],
        burst: vec![stretch("8@2s/up")],
        stall: vec![spell("300ms@1000/down"), spell("10ms:1e-3")],
        dead: vec![spell("50us@300ms")],
    };
    let faults = words.faults(1);
    assert_eq!(faults.drop, Stretches::new(1e-4, 20));
    assert_eq!(faults.duplicate, Stretches::new(1e-3, 16));
    assert_eq!(faults.burst, Stretches::default());
    assert_eq!(faults.stall, Spells::new(1e-3, 10 * MILLISECOND));
    assert_eq!(faults.dead, Spells::default());
    let planned = |fault, ways, when| Planned { fault, ways, when };
    assert_eq!(
        faults.planned,
        [
            planned(Fault::Drop(5), Ways::Both, Trigger::Byte(100)),
            planned(Fault::Burst(8), Ways::Up, Trigger::Time(2 * SECOND)),
            planned(
                Fault::Stall(300 * MILLISECOND),
                Ways::Down,
                Trigger::Byte(1_000)
            ),
            planned(
                Fault::Dead(50_000),
                Ways::Both,
                Trigger::Time(300 * MILLISECOND)
            ),
        ]
    );
}

#[test]
fn the_seed_chooses_random_places() {
    let place = |word: &str, seed| {
        let words = Words {
            stall: vec![spell(word)],
            ..Words::default()
        };
        match words.faults(seed).planned[0].when {
            Trigger::Byte(byte) => byte,
            Trigger::Time(time) => panic!("at {time}"),
        }
    };
    assert_eq!(place("300ms@random", 1), place("300ms@random", 1));
    let places: Vec<u64> = (0..100).map(|seed| place("1s@random:50", seed)).collect();
    assert!(places.iter().all(|byte| *byte < 50));
    assert!(places.iter().any(|byte| *byte > 40) && places.iter().any(|byte| *byte < 10));
}

#[test]
fn other_words_are_refused() {
    assert_eq!(rate("2"), Err(WordError::Rate("2".into())));
    assert_eq!(rate("NaN"), Err(WordError::Rate("NaN".into())));
    assert_eq!(time("300"), Err(WordError::Time("300".into())));
    assert_eq!(
        time("99999999999999999999s"),
        Err(WordError::Time("99999999999999999999s".into()))
    );
    let stretch = |word: &str| word.parse::<StretchWord>().unwrap_err();
    assert_eq!(stretch(""), WordError::Rate("".into()));
    assert_eq!(stretch("1e-3:many"), WordError::Count("many".into()));
    assert_eq!(stretch("3@5/left"), WordError::Way("left".into()));
    assert_eq!(stretch("3@soon"), WordError::Time("soon".into()));
    let spell = |word: &str| word.parse::<SpellWord>().unwrap_err();
    assert_eq!(spell("300ms"), WordError::Place("300ms".into()));
    assert_eq!(spell("x@5"), WordError::Time("x".into()));
}
