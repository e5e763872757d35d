//! The demo's shop as real processes: a payment provider that hangs takes everything down, or does not.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

struct Shop {
    storefront: u16,
    payments: Child,
    others: Vec<Child>,
}

impl Shop {
    fn open(options: &[&str]) -> Self {
        let (catalogue, catalogue_port) = start(&["catalogue"]);
        let (stock, stock_port) = start(&["stock"]);
        let (payments, payments_port) = start(&["payments"]);
        let ports = [catalogue_port, stock_port, payments_port].map(|port| port.to_string());
        let mut arguments = vec!["storefront", "--workers", "2"];
        arguments.extend(["--catalogue", &ports[0], "--stock", &ports[1], "--payments", &ports[2]]);
        arguments.extend(options);
        let (front, storefront) = start(&arguments);
        Shop { storefront, payments, others: vec![catalogue, stock, front] }
    }

    fn silence_payments(&self) {
        kill(Pid::from_raw(self.payments.id().cast_signed()), Signal::SIGSTOP).unwrap();
    }

    /// Status and body.
    fn get(&self, path: &str) -> Option<(u16, String)> {
        self.get_within(path, Duration::from_secs(20))
    }

    /// Whether a second brings no answer.
    fn hangs(&self, path: &str) -> bool {
        self.get_within(path, Duration::from_secs(1)).is_none()
    }

    fn get_within(&self, path: &str, timeout: Duration) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.storefront)).unwrap();
        stream.set_read_timeout(Some(timeout)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let status = answer.split(' ').nth(1)?.parse().ok()?;
        Some((status, answer.split_once("\r\n\r\n")?.1.to_owned()))
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        for child in self.others.iter_mut().chain([&mut self.payments]) {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

/// Starts a service on a port of its choice; it listens when this returns.
fn start(arguments: &[&str]) -> (Child, u16) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_squall"));
    command.arg("shop").args(arguments).args(["--port", "0"]).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    (child, line.trim().parse().unwrap())
}

fn ok(body: &str) -> Option<(u16, String)> {
    Some((200, body.to_owned()))
}

#[test]
fn without_a_time_out_a_silent_provider_takes_the_front_page_down() {
    let shop = Shop::open(&[]);
    assert_eq!(shop.get("/checkout"), ok("order paid\n"));
    assert_eq!(shop.get("/"), ok("Today: umbrella, raincoat, boots\n"));
    shop.silence_payments();
    assert_eq!(shop.get("/"), ok("Today: umbrella, raincoat, boots\n"), "a worker is still free");
    assert!(shop.hangs("/checkout") && shop.hangs("/checkout"), "both workers wait for payments");
    assert!(shop.hangs("/"), "no worker is left, though this page never asks payments");
    assert_eq!(shop.get("/health"), ok(r#"{"workers":2,"busy":2,"queued":0}"#), "who gave up does not queue");
    kill(Pid::from_raw(shop.payments.id().cast_signed()), Signal::SIGCONT).unwrap();
    assert_eq!(shop.get("/checkout"), ok("order paid\n"), "and it recovers by itself");
}

#[test]
fn a_time_out_keeps_the_front_page_and_a_fallback_keeps_the_checkout() {
    let failing = Shop::open(&["--payment-timeout", "100ms"]);
    let keeping = Shop::open(&["--payment-timeout", "100ms", "--retries", "2", "--fallback"]);
    for shop in [&failing, &keeping] {
        shop.silence_payments();
    }
    assert_eq!(failing.get("/checkout"), Some((502, "the payment failed\n".to_owned())));
    assert_eq!(failing.get("/"), ok("Today: umbrella, raincoat, boots\n"));
    let begun = Instant::now();
    assert_eq!(keeping.get("/checkout"), ok("order accepted, payment will be taken later\n"));
    assert!(begun.elapsed() >= Duration::from_millis(300), "three attempts");
}

#[test]
fn customers_count_what_they_got() {
    let shop = Shop::open(&[]);
    let port = shop.storefront.to_string();
    let mut customers = Command::new(env!("CARGO_BIN_EXE_squall"))
        .args(["shop", "customers", "--rate", "50", "--port", &port])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(customers.stdout.take().unwrap()).lines();
    let served = |line: String| {
        let tally: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(tally["lost"], 0, "{line}");
        tally["served"].as_u64().unwrap()
    };
    // A line every 250 ms: after a second some 100 pages, on a slow machine fewer.
    let counts: Vec<u64> = lines.by_ref().take(5).map(|line| served(line.unwrap())).collect();
    assert!(counts.is_sorted() && counts[4] > 2, "{counts:?}");
    // They end when nobody reads them.
    drop(lines);
    let begun = Instant::now();
    while customers.try_wait().unwrap().is_none() {
        assert!(begun.elapsed() < Duration::from_secs(20), "still coming");
        std::thread::sleep(Duration::from_millis(20));
    }
}
