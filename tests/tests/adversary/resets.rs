//! A device that is restarted under the real command: it is served all the same, and the books show every order.

use keyferry::station::registry::{OrderState, Registry};
use keyferry_protocol::identity::DeviceId;
use keyferry_protocol::message::Request;
use keyferry_protocol::order::Kind;
use keyferry_tests::desk::{Desk, OnDesk};
use keyferry_tests::mitm::{Fate, Mitm};
use keyferry_tests::relay::Relay;

use crate::line::Line;

/// The number of the board.
const NUMBER: u8 = 7;

#[test]
fn a_restart_under_the_command_is_in_the_books_and_costs_no_key() {
    let line = Line::new("line");
    let device = OnDesk::start(Desk::new(NUMBER, 32));
    let open = ["--policy", "open"];
    let cable = Relay::to(device.port());
    line.done(
        "enroll",
        cable.path(),
        &[&open[..], &["--unwrap", "p-256"]].concat(),
    );
    drop(cable);

    let board = device.clone();
    let mut once = true;
    let hands = move |_, message: &mut Vec<u8>| {
        if matches!(Request::decode(message), Ok(Request::Blob { .. })) && std::mem::take(&mut once)
        {
            board.restart(NUMBER);
        }
        Fate::Pass
    };
    let cable = Relay::to(Box::new(Mitm::new(device.port(), hands)));
    let keys = ["--key", "mac@0", "--key", "other@1"];
    let done = line.done("inject", cable.path(), &[&open[..], &keys].concat());
    drop(cable);
    assert_eq!(done["keys_proved"], 2);
    // Wrapped once, whatever the number of orders; no key is given up, none is left open.
    assert_eq!(line.tally(), [2, 2, 0, 0]);

    let registry = Registry::open(line.file("registry.db").as_ref()).unwrap();
    let orders = registry.orders(DeviceId([NUMBER; 16])).unwrap();
    let injects: Vec<_> = orders
        .iter()
        .filter(|order| order.kind == Kind::Inject)
        .map(|order| (order.state, order.counter))
        .collect();
    // The statement of the visit had the counter 2.
    assert_eq!(injects, [(OrderState::Failed, 3), (OrderState::Applied, 3)]);
}
