//! Certificates, and the whole life of a device.

use std::time::SystemTime;

use keyferry::audit::{AuditError, AuditLog, Fault, verify};
use keyferry::certificate::{
    CaCertificate, Identity, Issuer, Serial, Validity, parse_subject, self_signed,
};
use keyferry::device::flow::{self, Shipment};
use keyferry::device::verify::Statement;
use keyferry_protocol::identity::Challenge;
use keyferry_protocol::proof::Proof;
use keyferry_tests::audited::{Invented, Station};
use keyferry_tests::desk::{Desk, OnDesk};
use keyferry_tests::software::{SoftAuthority, aes_key, hmac_key, wrap};

use crate::kept::{keys_of, rejected, whole, with_device};

/// A certificate for a device's identity key.
fn certificate(statement: &Statement) -> Vec<u8> {
    let key = SoftAuthority::new(70);
    let now = SystemTime::now();
    let subject = parse_subject("CN=factory").unwrap();
    let ca = self_signed(&key, &subject, Validity::Unlimited, now).unwrap();
    let ca = CaCertificate::read(&ca).unwrap();
    let identity = Identity {
        serial: Serial::product("0001").unwrap(),
        organization: None,
        common_name: None,
        key: &statement.identity_key,
    };
    Issuer::new(&key, ca)
        .unwrap()
        .issue(&identity, now)
        .unwrap()
}

#[test]
fn a_certificate_is_the_devices_and_is_written_down_before_it_leaves() {
    let folder = tempfile::tempdir().unwrap();
    let (station, device, statement) = with_device(&folder);
    let der = certificate(&statement);
    let with = |der: Vec<u8>| Shipment {
        certificate: Some(der),
        ..wrap(&statement, &[aes_key(16, 1)], 1)
    };
    let result = station.wrapping(&statement, &with(der.clone()));
    result.unwrap();
    let result = station.inject_order(&statement, &with(der.clone()));
    assert_eq!(rejected(&station, result), Fault::OtherCertificate);

    let stranger = Invented::new(4);
    let other = certificate(&stranger.enroll(&station, stranger.blank()));
    let result = station.log.lock().certified(device.id, &other);
    assert!(matches!(rejected(&station, result), Fault::Certificate(_)));
    let mut altered = der.clone();
    let last = altered.len() - 1;
    altered[last] ^= 1;
    station.log.lock().certified(device.id, &der).unwrap();
    let result = station.inject_order(&statement, &with(altered));
    assert_eq!(rejected(&station, result), Fault::OtherCertificate);
    station.inject_order(&statement, &with(der)).unwrap();
    assert_eq!(whole(&station).tally.certified, 1);
}

/// Enrolled, certified, given keys, one removed, handed over, proved, wiped: twelve orders.
fn live(station: &mut Station, device: &OnDesk) {
    let (mut session, statement) = station.visit(device);
    let der = certificate(&statement);
    station
        .log
        .lock()
        .certified(statement.device, &der)
        .unwrap();
    let shipment = Shipment {
        certificate: Some(der),
        parcels: Vec::new(),
        ..wrap(&statement, &[], 1)
    };
    let authority = &station.authority;
    let quiet = &mut |_| {};
    let once = Challenge([8; 32]);
    flow::inject(&mut session, authority, &statement, &shipment, once, quiet).unwrap();
    let (mut session, statement) = station.visit(device);
    station.inject(&mut session, &statement, &[aes_key(32, 1), hmac_key(2)]);
    let (mut session, statement) = station.visit(device);
    flow::remove(&mut session, authority, &statement, &[0], quiet).unwrap();

    let (mut session, statement) = station.visit(device);
    let new = SoftAuthority::new(50);
    flow::rotate(&mut session, authority, &new, &statement, quiet).unwrap();
    station.authority = new;
    let (mut session, statement) = station.visit(device);
    station.prove(&mut session, &statement, &[(1, Proof::HmacSha256)]);
    let (mut session, statement) = station.visit(device);
    flow::wipe(&mut session, &station.authority, &statement, quiet).unwrap();
}

#[test]
fn the_whole_life_of_a_device_is_followed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.log");
    let mut station = Station::new(&path);
    let given = keys_of(&station);
    live(&mut station, &OnDesk::start(Desk::new(1, 32)));
    let report = verify::<AuditError>(&path, given, &[], |_, _| Ok(())).unwrap();
    let tally = &report.tally;
    assert_eq!((tally.orders, tally.applied, tally.refused), (12, 12, 0));
    assert_eq!((tally.wrapped, tally.proved, tally.proofs_again), (2, 2, 1));
    assert_eq!((report.devices, report.noticed), (0, 0));
    // The same, by a station that starts again.
    drop(station);
    let log = AuditLog::open(&path).unwrap();
    assert_eq!(
        (log.head().lines, log.open_orders()),
        (report.lines, vec![])
    );
}
