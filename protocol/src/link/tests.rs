use super::frame::{Deframed, Fields, flag};
use super::*;
use std::vec::Vec;

type Station = Link<16_384, 16_384, 4_096>;
type Device = Link<2_048, 2_112, 640>;

/// Both ends and what arrived at them.
struct Ends {
    station: Station,
    device: Device,
    now: Millis,
    at_station: Vec<Vec<u8>>,
    at_device: Vec<Vec<u8>>,
    events: Vec<Event>,
}

/// The number of the first session.
const FIRST: u16 = 0x0708;

/// A device that gives the number after this one to its first session.
fn device(before: u16) -> Device {
    Device::offering(0, before)
}

impl Ends {
    fn closed() -> Self {
        Self {
            station: on_a_fast_line(),
            device: device(FIRST - 1),
            now: 1_000,
            at_station: Vec::new(),
            at_device: Vec::new(),
            events: Vec::new(),
        }
    }

    fn opened() -> Self {
        let mut ends = Self::closed();
        ends.open(7);
        ends.settle();
        assert_eq!(ends.events, [Event::Opened]);
        assert_eq!(ends.at_device, [b"hello"]);
        assert!(ends.station.idle());
        ends.at_device.clear();
        ends.events.clear();
        ends
    }

    fn open(&mut self, nonce: u32) {
        self.station.open(nonce, self.now);
        self.station.send(b"hello").unwrap();
    }

    /// Carries bytes both ways through lines that may change them, until nobody has any.
    fn settle_through(&mut self, down: &mut Line<'_>, up: &mut Line<'_>) {
        loop {
            let one = take_frame(&mut self.station, self.now);
            let other = take_frame(&mut self.device, self.now);
            if one.is_empty() && other.is_empty() {
                return;
            }
            let arriving = if one.is_empty() { one } else { down(one) };
            self.device.receive(&arriving, self.now);
            self.events.extend(self.device.event());
            collect(&mut self.device, &mut self.at_device);
            let arriving = if other.is_empty() { other } else { up(other) };
            self.station.receive(&arriving, self.now);
            self.events.extend(self.station.event());
            collect(&mut self.station, &mut self.at_station);
        }
    }

    fn settle(&mut self) {
        self.settle_through(&mut clean, &mut clean);
    }

    /// Lets time pass until the next deadline of either end.
    fn wait(&mut self) {
        let deadlines = [self.station.deadline(), self.device.deadline()];
        let next = deadlines.into_iter().flatten().min().unwrap();
        self.now = self.now.max(next);
    }
}

/// A link whose bytes are away at once: time does not pass while bytes are carried here.
fn on_a_fast_line() -> Station {
    let mut station = Station::new();
    station.set_rate(u32::MAX);
    station
}

type Line<'a> = dyn FnMut(Vec<u8>) -> Vec<u8> + 'a;

fn clean(bytes: Vec<u8>) -> Vec<u8> {
    bytes
}

fn cut(_: Vec<u8>) -> Vec<u8> {
    Vec::new()
}

fn take_frame<const RX: usize, const TX: usize, const OUT: usize>(
    link: &mut Link<RX, TX, OUT>,
    now: Millis,
) -> Vec<u8> {
    let bytes = link.transmit(now).to_vec();
    link.transmitted(bytes.len(), now);
    bytes
}

fn collect<const RX: usize, const TX: usize, const OUT: usize>(
    link: &mut Link<RX, TX, OUT>,
    messages: &mut Vec<Vec<u8>>,
) {
    while let Some(front) = link.front() {
        if front.bytes.is_empty() {
            return;
        }
        if front.consumed == 0 {
            messages.push(Vec::new());
        }
        let bytes = front.bytes.to_vec();
        messages.last_mut().unwrap().extend_from_slice(&bytes);
        link.consume(bytes.len());
    }
}

#[test]
fn messages_pass_both_ways() {
    let mut ends = Ends::opened();
    let (mut down, mut up) = (Vec::new(), Vec::new());
    for round in 0..if cfg!(miri) { 20 } else { 600_u32 } {
        let message: Vec<u8> = (0..=round * 3).map(|i| (i % 7) as u8).collect();
        ends.station.send(&message).unwrap();
        ends.device.send(&message).unwrap();
        down.push(message.clone());
        up.push(message);
        ends.settle();
        assert!(ends.station.idle() && ends.device.idle());
    }
    assert_eq!(ends.at_device, down);
    assert_eq!(ends.at_station, up);
    assert_eq!(ends.device.send(&[0; 2111]), Err(LinkError::TooLong));
    assert_eq!(ends.device.send(&[]), Err(LinkError::TooLong));
    ends.device.send(&[0; 2110]).unwrap();
    assert_eq!(ends.device.send(b"again"), Err(LinkError::Busy));
    ends.settle();
    assert_eq!(ends.at_station.last().unwrap().len(), 2110);
}

#[test]
fn a_message_longer_than_all_buffers_is_streamed() {
    let mut ends = Ends::opened();
    let length = if cfg!(miri) { 18_000 } else { 60_000_u16 };
    let message: Vec<u8> = (0..u32::from(length))
        .map(|i| (i * 31 % 251) as u8)
        .collect();
    ends.station.begin(length).unwrap();
    let mut rest = &message[..];
    while !rest.is_empty() {
        let count = ends.station.write(rest);
        rest = &rest[count..];
        ends.settle();
    }
    assert_eq!(ends.at_device, [message]);
}

/// SPEC: M-37
#[test]
fn nothing_comes_that_there_is_no_room_for() {
    let mut ends = Ends::opened();
    ends.station.send(&[5; 4_000]).unwrap();
    // The device consumes nothing.
    for _ in 0..20 {
        loop {
            let bytes = take_frame(&mut ends.station, ends.now);
            if bytes.is_empty() {
                break;
            }
            ends.device.receive(&bytes, ends.now);
            let answer = take_frame(&mut ends.device, ends.now);
            ends.station.receive(&answer, ends.now);
        }
        ends.wait();
    }
    let front = ends.device.front().unwrap();
    // All of the buffer but for the length of the message.
    assert!(front.bytes.len() >= 2_040, "{}", front.bytes.len());
    collect(&mut ends.device, &mut ends.at_device);
    ends.settle();
    assert_eq!(ends.at_device, [[5; 4_000]]);
}

/// SPEC: M-2, M-3, M-4, M-5
#[test]
fn a_frame_damaged_at_any_byte_arrives_once_and_whole() {
    let message = [0x11, 0, 0x22, 0, 0, 0x33];
    let length = {
        let mut ends = Ends::opened();
        ends.station.send(&message).unwrap();
        ends.station.transmit(ends.now).len()
    };
    for position in (0..length).step_by(if cfg!(miri) { 4 } else { 1 }) {
        for damage in (1..=255_u8).step_by(if cfg!(miri) { 85 } else { 1 }) {
            let mut ends = Ends::opened();
            ends.station.send(&message).unwrap();
            let mut first = true;
            let mut spoil = |mut bytes: Vec<u8>| {
                if core::mem::take(&mut first) {
                    bytes[position] ^= damage;
                }
                bytes
            };
            for _ in 0..6 {
                ends.settle_through(&mut spoil, &mut clean);
                ends.wait();
            }
            assert_eq!(ends.at_device, [message], "byte {position}");
            assert!(ends.station.idle());
        }
    }
}

/// SPEC: M-6
#[test]
fn only_what_was_lost_is_sent_again() {
    let mut ends = Ends::opened();
    let message: Vec<u8> = (0..1_900_u32).map(|i| (i % 253) as u8).collect();
    ends.station.send(&message).unwrap();
    let (mut frames, mut carried) = (0, 0);
    let mut lose_first = |bytes: Vec<u8>| {
        frames += 1;
        carried += bytes.len();
        if frames == 1 { Vec::new() } else { bytes }
    };
    ends.settle_through(&mut lose_first, &mut clean);
    assert_eq!(ends.at_device, [message]);
    // Twice the first frame, of 1024 bytes at most, and once the rest.
    assert!(carried < 1_900 + 1_024 + 200, "{carried} bytes");
    // In two frames of half its size: a loss makes frames smaller.
    assert_eq!(ends.station.repeated_frames(), 2);
}

#[test]
fn what_a_line_does_is_counted_until_the_next_session() {
    let mut ends = Ends::opened();
    let counts = |ends: &Ends| {
        let all = [ends.station.damaged_frames(), ends.device.damaged_frames()];
        let again = [
            ends.station.repeated_frames(),
            ends.device.repeated_frames(),
        ];
        (all, again)
    };
    assert_eq!(counts(&ends), ([0, 0], [0, 0]));
    let spoil_first = || {
        let mut first = true;
        move |mut bytes: Vec<u8>| {
            if core::mem::take(&mut first) {
                bytes[9] ^= 0x40;
            }
            bytes
        }
    };
    ends.station.send(b"down").unwrap();
    ends.settle_through(&mut spoil_first(), &mut clean);
    assert_eq!(counts(&ends), ([0, 1], [1, 0]));
    ends.device.send(b"up").unwrap();
    ends.settle_through(&mut clean, &mut spoil_first());
    assert_eq!(counts(&ends), ([1, 1], [1, 1]));
    // More than half way around the offsets, so that the counting goes on beyond their end.
    for _ in 0..if cfg!(miri) { 2 } else { 30 } {
        ends.station.send(&[7; 1_500]).unwrap();
        ends.settle();
    }
    assert_eq!(counts(&ends), ([1, 1], [1, 1]));
    ends.station.receive(&[3, 9, 9, 0], ends.now);
    assert_eq!(ends.station.damaged_frames(), 2);
    ends.open(8);
    ends.settle();
    assert_eq!(counts(&ends), ([0, 0], [0, 0]));
}

/// SPEC: M-5
#[test]
fn a_lost_acknowledgement_does_not_deliver_twice() {
    let mut ends = Ends::opened();
    ends.station.send(b"once").unwrap();
    ends.settle_through(&mut clean, &mut cut);
    assert!(!ends.station.idle());
    ends.wait();
    ends.settle();
    assert!(ends.station.idle());
    assert_eq!(ends.at_device, [b"once"]);
}

/// SPEC: M-7
#[test]
fn a_silent_peer_is_given_up() {
    let mut ends = Ends::opened();
    let start = ends.now;
    ends.station.send(b"anyone?").unwrap();
    let mut sent = 0;
    while ends.station.event() != Some(Event::Lost) {
        sent += usize::from(!take_frame(&mut ends.station, ends.now).is_empty());
        ends.now = ends
            .station
            .deadline()
            .map_or(ends.now, |at| at.max(ends.now));
        assert!(ends.now <= start + SILENCE);
    }
    assert!((20..60).contains(&sent), "{sent}");
    assert_eq!(ends.station.send(b"x"), Err(LinkError::Closed));
    assert_eq!(ends.station.deadline(), None);
}

/// SPEC: M-8
#[test]
fn a_restarted_device_says_so() {
    let mut ends = Ends::opened();
    ends.device = device(99);
    // The station has nothing to say: it asks by itself.
    ends.wait();
    ends.settle();
    assert_eq!(ends.events, [Event::Reset]);
    assert!(!ends.station.is_open());
    ends.open(8);
    ends.settle();
    assert_eq!(ends.at_device, [b"hello"]);
}

/// A device that is restarted while the opening frame is on its way a second time takes the session up anew, and its number tells that it is
/// another: nothing of the two is put together, whatever either end had sent or sends first.
///
/// SPEC: M-54
#[test]
fn a_device_that_is_restarted_amid_the_opening_does_not_go_on() {
    for from_device in [false, true] {
        for from_station in [false, true] {
            for again in [false, true] {
                let mut ends = Ends::closed();
                ends.open(7);
                let opening = take_frame(&mut ends.station, ends.now);
                ends.device.receive(&opening, ends.now);
                assert_eq!(ends.device.event(), Some(Event::Opened));
                if from_device {
                    ends.device.send(b"of the first").unwrap();
                }
                ends.settle();
                if from_station {
                    ends.station.send(b"for the first").unwrap();
                    ends.settle();
                }
                ends.at_station.clear();
                ends.device = device(99);
                ends.device.receive(&opening, ends.now);
                assert_eq!(ends.device.event(), Some(Event::Opened));
                ends.at_device.clear();
                if again {
                    ends.device.send(b"of the second").unwrap();
                    ends.station.send(b"still for the first").unwrap();
                }
                assert!(ends.events.is_empty());
                // If nobody has anything to say, the station asks for a sign of life.
                ends.wait();
                ends.settle();
                assert_eq!(ends.events, [Event::Reset]);
                assert!(ends.at_station.is_empty());
                assert_eq!(ends.at_device, [b"hello"]);
                (ends.at_device, ends.events) = Default::default();
                ends.open(8);
                ends.settle();
                assert_eq!(ends.events, [Event::Opened]);
                assert_eq!(ends.at_device, [b"hello"]);
                assert!(ends.at_station.is_empty());
            }
        }
    }
}

/// SPEC: M-54
#[test]
fn a_device_numbers_its_sessions_one_by_one() {
    let mut ends = Ends::closed();
    ends.device = device(u16::MAX - 1);
    let end_it: [fn(&mut Ends); 4] = [
        |_| {},
        |ends| ends.station.close(),
        |ends| ends.device.close(),
        |ends| ends.now += SILENCE,
    ];
    for (number, end) in [u16::MAX, 0, 1, 2].into_iter().zip(end_it) {
        ends.open(number.into());
        ends.settle();
        assert_eq!(
            (ends.station.session, ends.device.session),
            (number, number)
        );
        ends.station.send(b"on we go").unwrap();
        ends.settle();
        assert!(ends.station.idle());
        end(&mut ends);
        ends.settle();
    }
    assert!(!ends.device.is_open());
    ends.open(9);
    ends.settle();
    assert_eq!(ends.device.session, 3);
}

/// What a device says late to a station that has begun anew is no answer to that.
///
/// SPEC: M-39
#[test]
fn an_answer_to_an_earlier_opening_opens_nothing() {
    let mut ends = Ends::closed();
    ends.open(7);
    let opening = take_frame(&mut ends.station, ends.now);
    ends.device.receive(&opening, ends.now);
    let late = take_frame(&mut ends.device, ends.now);
    ends.open(8);
    ends.station.receive(&late, ends.now);
    assert!(ends.station.front().is_none());
    ends.settle();
    assert_eq!(ends.device.session, FIRST + 1);
    assert_eq!(ends.station.session, FIRST + 1);
    assert_eq!(ends.at_device.last().unwrap(), b"hello");
    assert!(ends.station.idle());
}

/// A session that is being opened has no number yet by which it could be ended.
#[test]
fn what_is_closed_as_it_is_opened_is_over_at_the_station_alone() {
    let mut ends = Ends::closed();
    ends.open(7);
    let opening = take_frame(&mut ends.station, ends.now);
    ends.station.close();
    assert!(!ends.station.is_open());
    assert!(take_frame(&mut ends.station, ends.now).is_empty());
    ends.device.receive(&opening, ends.now);
    ends.settle();
    assert!(ends.device.is_open() && !ends.station.is_open());
    ends.events.clear();
    ends.open(8);
    ends.settle();
    assert_eq!(ends.events, [Event::Opened]);
    assert!(ends.station.idle());
}

/// SPEC: M-9
#[test]
fn a_new_session_drops_the_old() {
    let mut ends = Ends::opened();
    ends.device.send(b"stale reply").unwrap();
    ends.station = on_a_fast_line();
    ends.open(8);
    ends.settle();
    assert_eq!(ends.events, [Event::Opened]);
    assert_eq!(ends.at_device, [b"hello"]);
    assert!(ends.at_station.is_empty());
    assert!(ends.device.idle());
}

#[test]
fn an_opening_frame_that_comes_twice_opens_once() {
    let mut ends = Ends::closed();
    ends.open(7);
    ends.settle_through(&mut |bytes| [&bytes[..], &bytes].concat(), &mut clean);
    assert_eq!(ends.events, [Event::Opened]);
    assert_eq!(ends.at_device, [b"hello"]);
}

/// SPEC: M-39
#[test]
fn the_opening_is_repeated_until_it_is_heard() {
    let mut ends = Ends::closed();
    ends.open(7);
    for _ in 0..5 {
        ends.settle_through(&mut cut, &mut clean);
        ends.wait();
    }
    // The answer is lost as well.
    ends.settle_through(&mut clean, &mut cut);
    assert!(ends.station.front().is_none());
    ends.device.send(b"welcome").unwrap();
    for _ in 0..3 {
        ends.wait();
        ends.settle();
    }
    assert_eq!(ends.at_device, [b"hello"]);
    assert_eq!(ends.at_station, [b"welcome"]);
    assert_eq!(ends.events, [Event::Opened]);
}

/// SPEC: M-36
#[test]
fn a_cable_that_leads_back_is_no_device() {
    let mut station = on_a_fast_line();
    station.open(7, 0);
    station.send(b"hello").unwrap();
    let mut now = 0;
    for _ in 0..10 {
        let bytes = take_frame(&mut station, now);
        station.receive(&bytes, now);
        assert!(station.front().is_none());
        now += 100;
    }
}

#[test]
fn a_closed_session_is_over_at_both_ends() {
    let mut ends = Ends::opened();
    ends.station.send(b"half said").unwrap();
    ends.station.close();
    ends.settle();
    assert_eq!(ends.events, [Event::Reset]);
    assert!(ends.at_device.is_empty());
    assert!(!ends.station.is_open() && !ends.device.is_open());
}

/// SPEC: M-2
#[test]
fn garbage_and_endless_bytes_are_survived() {
    let mut ends = Ends::opened();
    let length = if cfg!(miri) { 2_000 } else { 20_000_u32 };
    let noise: Vec<u8> = (0..length).map(|i| (i * 31 % 251) as u8 + 1).collect();
    ends.device.receive(&noise, ends.now);
    ends.station.send(b"after the noise").unwrap();
    ends.settle();
    assert_eq!(ends.at_device, [b"after the noise"]);
}

/// SPEC: M-3
#[test]
fn damage_is_not_reported_for_ever() {
    let mut ends = Ends::opened();
    let mut reports = 0;
    for _ in 0..100 {
        ends.device.receive(&[1, 2, 3, 0], ends.now);
        reports += usize::from(!take_frame(&mut ends.device, ends.now).is_empty());
    }
    assert_eq!(reports, usize::from(REPORTS));
}

/// Sends messages, loses one frame in `loss` (0: none), and tells the longest frame of the last message.
fn longest_frame(ends: &mut Ends, loss: u32) -> usize {
    let mut longest = 0;
    let mut state = 1_u32;
    for _ in 0..if cfg!(miri) { 6 } else { 24 } {
        longest = 0;
        ends.station.send(&[9; 1_900]).unwrap();
        while !ends.station.idle() {
            let mut line = |bytes: Vec<u8>| {
                longest = longest.max(bytes.len());
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                if loss > 0 && (state >> 16).is_multiple_of(loss) {
                    Vec::new()
                } else {
                    bytes
                }
            };
            ends.settle_through(&mut line, &mut clean);
            if !ends.station.idle() {
                ends.wait();
            }
        }
    }
    longest
}

/// SPEC: M-38
#[test]
fn frames_shrink_on_a_bad_line_and_grow_again() {
    let mut ends = Ends::opened();
    // The device likes half of its buffer at a time.
    let most = 1_024 + 17 + 5 + 1;
    assert!((1_000..=most).contains(&longest_frame(&mut ends, 0)));
    assert!(longest_frame(&mut ends, 3) < 300);
    assert!(longest_frame(&mut ends, 0) > 1_000);
}

#[test]
fn the_state_beside_the_buffers_is_small() {
    const { assert!(Device::STATE < 1_024) };
    std::println!("{} bytes", Device::STATE);
}

/// SPEC: M-1
#[test]
fn a_frame_has_the_bytes_of_the_specification() {
    let mut link = Device::new();
    link.open(0x0a0b_0c0d, 0);
    link.send(b"Hi").unwrap();
    let frame = link.transmit(0);
    let hex: std::string::String = frame.iter().map(|b| std::format!("{b:02x}")).collect();
    assert_eq!(
        hex,
        "00024101010101010102ff030804050d0c0b0a02040102020748698362059200"
    );
}

/// A frame as a stranger on the cable writes it.
fn forged(fields: &Fields) -> Vec<u8> {
    forged_with(fields, &[])
}

fn forged_with(fields: &Fields, data: &[u8]) -> Vec<u8> {
    let mut out = [0; 128];
    let length = frame::encode(fields, data, true, &mut out);
    out[..length].to_vec()
}

/// SPEC: M-2, M-9
#[test]
fn a_frame_that_opens_and_resets_or_opens_amid_a_stream_is_dropped() {
    let parameters = Some(Parameters {
        nonce: 99,
        max_frame: 512,
        rates: 0,
    });
    for (flags, offset, length, opens) in [
        (flag::OPEN, 0, 32, true),
        (flag::OPEN | flag::RESET, 0, 0, false),
        (flag::OPEN, 1, 0, false),
        (flag::OPEN, 0, 33, false),
    ] {
        let mut ends = Ends::opened();
        let fields = Fields {
            flags,
            offset,
            parameters,
            ..Fields::default()
        };
        ends.device
            .receive(&forged_with(&fields, &[0; 33][..length]), ends.now);
        assert_eq!(ends.device.event(), opens.then_some(Event::Opened));
        if !opens {
            // Neither is there a word to the stranger, nor is the session harmed.
            let said = take_frame(&mut ends.device, ends.now);
            assert!(said.is_empty() || flags & flag::RESET != 0, "{flags:x}");
            ends.station.send(b"on we go").unwrap();
            ends.settle();
            assert_eq!(ends.at_device, [b"on we go"]);
        }
    }
}

/// SPEC: M-8, M-36
#[test]
fn a_reset_has_its_session_and_nothing_else() {
    let reset = |flags| Fields {
        flags: flag::RESET | flags,
        session: FIRST,
        ..Fields::default()
    };
    let mut ends = Ends::opened();
    ends.device.send(b"half said").unwrap();
    let frame = take_frame(&mut ends.device, ends.now);
    ends.station.receive(&frame, ends.now);
    ends.station.close();
    let closing = take_frame(&mut ends.station, ends.now);
    // The zero at its front is the one that ended the frame before.
    assert_eq!(closing, forged(&reset(0))[1..]);
    ends.device.receive(&closing, ends.now);
    assert_eq!(ends.device.event(), Some(Event::Reset));
    // And what a device says to a session that it does not know.
    let stranger = Fields {
        flags: flag::PING,
        session: FIRST,
        number: 3,
        offset: 9,
        acknowledgement: 4,
        heard: 2,
        credit: 800,
        ..Fields::default()
    };
    ends.device.receive(&forged(&stranger), ends.now);
    let answer = take_frame(&mut ends.device, ends.now);
    let wanted = forged(&reset(flag::DEVICE));
    assert!(wanted.ends_with(&answer) && answer.len() >= wanted.len() - 1);
}

/// SPEC: M-43
#[test]
fn what_is_held_is_kept_whatever_comes_after() {
    let mut ends = Ends::opened();
    ends.station.send(&[6; 3_000]).unwrap();
    let first = take_frame(&mut ends.station, ends.now);
    let second = take_frame(&mut ends.station, ends.now);
    ends.device.receive(&second, ends.now);
    let held = ends.device.receiver.held().as_slice().to_vec();
    assert_eq!(held.len(), 1);
    // The same bytes once more, and now they are damaged, or forged: what is there already is not written to.
    let mut damaged = second;
    let middle = damaged.len() / 2;
    damaged[middle] ^= 4;
    ends.device.receive(&damaged, ends.now);
    let fields = Fields {
        session: FIRST,
        number: 9,
        offset: held[0].0,
        ..Fields::default()
    };
    ends.device
        .receive(&forged_with(&fields, &[9; 40]), ends.now);
    assert_eq!(ends.device.receiver.held().as_slice(), held);
    ends.device.receive(&first, ends.now);
    ends.settle();
    collect(&mut ends.device, &mut ends.at_device);
    assert_eq!(ends.at_device, [[6; 3_000]]);
}

/// SPEC: M-44
#[test]
fn few_numbers_are_unheard_even_with_room_for_many_frames() {
    let mut station = on_a_fast_line();
    station.open(7, 0);
    station.send(b"hello").unwrap();
    take_frame(&mut station, 0);
    let fields = Fields {
        flags: flag::DEVICE,
        session: FIRST,
        acknowledgement: 7,
        credit: 32_767,
        parameters: Some(Parameters {
            nonce: 7,
            max_frame: 0,
            rates: 0,
        }),
        ..Fields::default()
    };
    station.receive(&forged(&fields), 0);
    station.send(&[1; 16_000]).unwrap();
    let sent = (0..200)
        .take_while(|_| !take_frame(&mut station, 0).is_empty())
        .count();
    assert!((1..128).contains(&sent), "{sent}");
}

/// SPEC: M-45
#[test]
fn no_credit_is_above_half_the_circle_of_offsets() {
    let mut largest = Link::<32_767, 128, 640>::new();
    largest.open(1, 0);
    largest.send(b"hello").unwrap();
    let frame = largest.transmit(0).to_vec();
    let mut deframer = Deframer::new();
    let mut receiver = receiver::Receiver::<128>::new();
    let credits: Vec<u16> = frame
        .iter()
        .filter_map(|byte| match deframer.feed(*byte, &mut receiver) {
            Deframed::Frame(fields, _) => Some(fields.credit),
            Deframed::Nothing | Deframed::Damaged => None,
        })
        .collect();
    assert_eq!(credits, [32_767]);
}

/// Three ranges that lead around the whole circle of offsets would be followed for ever.
#[test]
fn ranges_that_lead_in_a_circle_are_no_ranges() {
    let mut ends = Ends::opened();
    let mut fields = Fields {
        flags: flag::DEVICE,
        session: FIRST,
        acknowledgement: 7,
        credit: 2_048,
        ..Fields::default()
    };
    for (start, end) in [(0, 22_000), (22_000, 44_000), (44_000, 0)] {
        assert!(fields.held.push(start, end));
    }
    ends.station.receive(&forged(&fields), ends.now);
    ends.station.send(b"on we go").unwrap();
    ends.settle();
    assert_eq!(ends.at_device, [b"on we go"]);
}

/// An end that acknowledges and says that it heard nothing must not leave offsets behind that come again.
#[test]
fn what_is_acknowledged_is_not_on_its_way() {
    let mut station = on_a_fast_line();
    station.open(7, 0);
    station.send(b"hello").unwrap();
    take_frame(&mut station, 0);
    let mut fields = Fields {
        flags: flag::DEVICE,
        session: FIRST,
        heard: u8::MAX,
        acknowledgement: 7,
        credit: 16_384,
        parameters: Some(Parameters {
            nonce: 7,
            max_frame: u16::MAX,
            rates: 0,
        }),
        ..Fields::default()
    };
    for _ in 0..25 {
        station.receive(&forged(&fields), 0);
        assert!(station.idle());
        station.send(&[1; 4_000]).unwrap();
        assert!(take_frame(&mut station, 0).len() > 4_000);
        fields.acknowledgement = fields.acknowledgement.wrapping_add(4_002);
    }
}

/// SPEC: M-4
#[test]
fn a_ping_takes_no_place_among_what_is_held() {
    let mut ends = Ends::opened();
    for length in 1..=ranges::MAX_RANGES as u16 {
        ends.device.receive(
            &forged(&Fields {
                flags: flag::PING,
                session: FIRST,
                number: 1,
                offset: 100 * length,
                ..Fields::default()
            }),
            ends.now,
        );
    }
    assert!(ends.device.receiver.held().as_slice().is_empty());
}

/// SPEC: M-4, M-37
#[test]
fn lost_news_of_room_is_asked_for() {
    let mut ends = Ends::opened();
    // All of the device's buffer, to the last byte.
    ends.station.send(&[5; 2_048]).unwrap();
    while !ends.station.idle() {
        let bytes = take_frame(&mut ends.station, ends.now);
        ends.device.receive(&bytes, ends.now);
        let answer = take_frame(&mut ends.device, ends.now);
        ends.station.receive(&answer, ends.now);
    }
    ends.station.send(&[6; 2_048]).unwrap();
    while !take_frame(&mut ends.station, ends.now).is_empty() {}
    collect(&mut ends.device, &mut ends.at_device);
    assert!(!take_frame(&mut ends.device, ends.now).is_empty());
    // That was lost.
    for _ in 0..4 {
        ends.wait();
        ends.settle();
    }
    assert_eq!(ends.at_device, [[5; 2_048], [6; 2_048]]);
    assert!(ends.now < 3_000, "{}", ends.now);
}

/// SPEC: M-46
#[test]
fn room_is_asked_for_less_and_less_often_but_twice_a_second() {
    let mut ends = Ends::opened();
    // The device works, and consumes nothing.
    ends.station.send(&[5; 4_000]).unwrap();
    let (begin, mut asked) = (ends.now, Vec::new());
    while ends.now < begin + 10_000 {
        loop {
            let bytes = take_frame(&mut ends.station, ends.now);
            if bytes.is_empty() {
                break;
            }
            if bytes.len() < 40 {
                asked.push(ends.now);
            }
            ends.device.receive(&bytes, ends.now);
            let answer = take_frame(&mut ends.device, ends.now);
            ends.station.receive(&answer, ends.now);
        }
        ends.wait();
    }
    let waits: Vec<_> = asked.windows(2).map(|two| two[1] - two[0]).collect();
    assert!(waits.is_sorted(), "{waits:?}");
    assert_eq!(waits.last(), Some(&KEEP_ALIVE));
    assert!((20..=26).contains(&asked.len()), "{}", asked.len());
    // Room brings the haste back.
    collect(&mut ends.device, &mut ends.at_device);
    ends.settle();
    assert_eq!(ends.at_device, [[5; 4_000]]);
    assert!(ends.station.idle());
}

/// Bytes for which there was no room as they came are not taken from what stood in the buffer before, even if room is made before their
/// frame ends.
///
/// SPEC: M-37
#[test]
fn room_that_is_made_while_a_frame_comes_is_not_for_that_frame() {
    let mut ends = Ends::opened();
    ends.station.send(&[5; 1_998]).unwrap();
    while !ends.station.idle() {
        let bytes = take_frame(&mut ends.station, ends.now);
        ends.device.receive(&bytes, ends.now);
        let answer = take_frame(&mut ends.device, ends.now);
        ends.station.receive(&answer, ends.now);
    }
    // There is room for some 50 bytes.
    let before = ends.device.receiver.acknowledgement();
    let fields = Fields {
        session: FIRST,
        number: 9,
        offset: before,
        ..Fields::default()
    };
    let frame = forged_with(&fields, &[1; 80]);
    let (most, last) = frame.split_at(frame.len() - 1);
    ends.device.receive(most, ends.now);
    collect(&mut ends.device, &mut ends.at_device);
    assert!(ends.device.receiver.credit() > 80);
    ends.device.receive(last, ends.now);
    assert_eq!(ends.device.receiver.acknowledgement(), before);
    // The next one has room.
    ends.device.receive(&frame, ends.now);
    assert_eq!(
        ends.device.receiver.acknowledgement(),
        before.wrapping_add(80)
    );
}

/// What the port has taken cannot be changed any more: on a slow line a station decides on the next frame when the last one has
/// nearly left, and then sends first what was lost meanwhile.
#[test]
fn a_station_decides_late_what_goes_out_next() {
    let mut ends = Ends::opened();
    ends.station.set_rate(rates::BASE);
    ends.station.send(&[7; 4_000]).unwrap();
    let first = take_frame(&mut ends.station, ends.now);
    let left = first.len() as u64 * rates::byte_time(rates::BASE) / 1_000_000;
    assert!(first.len() > 1_000);
    assert!(take_frame(&mut ends.station, ends.now).is_empty());
    let next = ends.station.deadline().unwrap();
    let leaves = ends.now + left;
    assert!(
        (leaves - AHEAD..=leaves - AHEAD + 1).contains(&next),
        "{next}"
    );
    assert!(take_frame(&mut ends.station, next - 1).is_empty());
    // The line does not stand still.
    assert!(take_frame(&mut ends.station, next).len() > 1_000);
}

/// The noise that ruins one direction ruins the other too.
#[test]
fn what_arrives_damaged_makes_the_own_frames_smaller() {
    let mut ends = Ends::opened();
    for _ in 0..4 {
        ends.device.ping();
        ends.settle_through(&mut clean, &mut |mut bytes| {
            bytes[3] ^= 4;
            bytes
        });
        ends.wait();
        ends.settle();
    }
    ends.station.send(&[7; 1_500]).unwrap();
    let frame = take_frame(&mut ends.station, ends.now);
    assert!(frame.len() < 1_024 / 4, "{}", frame.len());
}
