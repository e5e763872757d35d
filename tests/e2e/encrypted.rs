//! The way from a controller to Debian's PostgreSQL, over TLS with a certificate of the test's own.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustix::process::Signal;
use squall_tests::client::{Postgres, connect};
use squall_tests::needs;
use squall_tests::service::postgres_programs;
use squall_tests::squall::Background;
use squall_tests::wait::{PATIENCE, holds};
use squall_tests::world::World;

use crate::store::several::ends;

/// An authority, and where its certificate is.
fn authority(world: &World, name: &str) -> (CertifiedIssuer<'static, KeyPair>, String) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    let authority = CertifiedIssuer::self_signed(params, key).expect("an authority");
    let file = world.file(name, authority.pem());
    (authority, file)
}

#[test]
fn a_database_off_this_machine_is_spoken_to_over_tls_and_known_by_its_certificate() {
    needs!(Root, Postgres);
    let world = World::new(2);
    let host = &world.hosts[0];
    // Its address towards the other host: not loopback, though nothing leaves the machine.
    let away = host.v4.to_string();
    let service = world.postgres(0, 5432);
    ends(service.pid);
    let ((ours, ca), (_, other)) = (authority(&world, "ca.pem"), authority(&world, "other.pem"));
    let key = KeyPair::generate().expect("a key");
    let certificate = CertificateParams::new(vec![away.clone()]).expect("a name").signed_by(&key, &ours);
    let data = world.directory.join("service-0/data");
    let owner = fs::metadata(&data).expect("it is there");
    for (name, pem) in
        [("server.crt", certificate.expect("signed").pem()), ("server.key", key.serialize_pem())]
    {
        let file = data.join(name);
        fs::write(&file, pem).expect("root may write it");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("it is ours");
        chown(&file, Some(owner.uid()), Some(owner.gid())).expect("root may give it away");
    }
    let program = postgres_programs().expect("it was found before").join("postgres").display().to_string();
    let (data, sockets) =
        (data.display().to_string(), world.directory.join("service-0").display().to_string());
    let listening = ["-c", "listen_addresses=*", "-c", "ssl=on", "-c", "fsync=off"];
    let start = [&[program.as_str(), "-D", &data, "-k", &sockets, "-p", "5432"], &listening[..]].concat();
    let postmaster = world.program(0, Some(owner.uid()), &start);
    let loopback = std::net::SocketAddr::from(([127, 0, 0, 1], 5432));
    let asks = |sql: &str| Postgres::over(connect(&host.netns, loopback, PATIENCE)?)?.query(sql);
    holds("PostgreSQL to answer", PATIENCE, || asks("SELECT 1").is_ok());

    let mut number = 0;
    let mut serve = |at: &str| {
        number += 1;
        let directory = world.place(&format!("data-{number}")).display().to_string();
        host.squall(&["serve", "--data", &directory]).env("SQUALL_DATABASE", at).start()
    };
    let url = |at: &str, more: &str| format!("postgres://postgres@{at}/postgres{more}");
    let full = |at: &str, ca: &str| url(at, &format!("?sslmode=verify-full&sslrootcert={ca}"));
    // In the clear only where somebody says that it may be, and to nobody whose certificate does not say who he is.
    for (at, why) in [
        (url(&away, ""), "would not be encrypted"),
        (url(&away, "?sslmode=prefer"), "would not be encrypted"),
        (full(&away, &other), "certificate"),
        (url(&away, "?sslmode=require"), "certificate"),
        (full("127.0.0.1", &ca), "not valid for name"),
    ] {
        serve(&at).finish().expect_exit(4).expect_told(why);
    }
    assert_eq!(connections(&asks, true) + connections(&asks, false), 0);
    for (at, encrypted) in [
        (full(&away, &ca), true),
        (format!("host={away} user=postgres dbname=postgres sslmode=require sslrootcert='{ca}'"), true),
        (url(&away, "?sslmode=disable"), false),
    ] {
        let mut controller = serve(&at);
        listens(&mut controller);
        assert!(connections(&asks, encrypted) >= 2, "{at}: one that writes, one that reads");
        assert_eq!(connections(&asks, !encrypted), 0, "{at}");
        controller.signal(Signal::TERM);
        controller.finish().expect_exit(0);
        asks("DROP SCHEMA public CASCADE").and_then(|_| asks("CREATE SCHEMA public")).expect("for the next");
        holds("its connections to be gone", PATIENCE, || connections(&asks, encrypted) == 0);
    }
    ends(postmaster.pid);
}

fn listens(controller: &mut Background) {
    holds("the controller to listen", PATIENCE, || {
        assert!(!controller.ended(), "{}", controller.story());
        controller.story().contains("serves agents at")
    });
}

/// How many connections of controllers there are that are encrypted, or are not.
fn connections(asks: &impl Fn(&str) -> std::io::Result<String>, encrypted: bool) -> u32 {
    let sql = format!(
        "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'squall' AND {}ssl",
        if encrypted { "" } else { "NOT " }
    );
    asks(&sql).expect("it answers").trim().parse().expect("a number")
}
