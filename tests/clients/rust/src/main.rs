//! What a test suite does with `toxiproxy_rust`: arguments are the port of the interface and an echo server.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use toxiproxy_rust::client::Client;
use toxiproxy_rust::proxy::{Proxy, ProxyPack};

fn connect(proxy: &Proxy) -> TcpStream {
    let listen: SocketAddr = proxy.proxy_pack.listen.parse().expect("the real address is in the answer");
    let stream = TcpStream::connect(listen).expect("the proxy listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a time-out can be set");
    stream
}

fn ping(stream: &mut TcpStream) -> Duration {
    let begun = Instant::now();
    stream.write_all(b"x").expect("it can be sent");
    let mut byte = [0];
    stream.read_exact(&mut byte).expect("it comes back");
    begun.elapsed()
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let (port, upstream) = (arguments[1].parse::<u16>().expect("a port"), arguments[2].clone());
    let client = Client::new(("127.0.0.1", port));
    assert!(client.is_running());
    assert!(client.version().expect("an answer").contains("2.12.0"));

    let wanted = |name: &str| ProxyPack::new(name.to_owned(), "127.0.0.1:0".to_owned(), upstream.clone());
    let made = client.populate(vec![wanted("echo"), wanted("other")]).expect("two proxies");
    assert_eq!(made.len(), 2);
    assert_eq!(client.all().expect("an answer").len(), 2);
    made[1].delete().expect("it is there");
    assert!(client.find_proxy("other").is_err());

    let proxy = client.find_and_reset_proxy("echo").expect("it is there");
    assert_eq!(proxy.proxy_pack.upstream, upstream);
    let mut stream = connect(&proxy);
    ping(&mut stream);
    let late = proxy.with_latency("downstream".into(), 60, 0, 1.0);
    let toxics = proxy.toxics().expect("an answer");
    assert_eq!((toxics[0].name.as_str(), toxics[0].attributes["latency"]), ("latency_downstream", 60));
    late.apply(|| assert!(ping(&mut stream) >= Duration::from_millis(60))).expect("it can be removed");
    assert!(proxy.toxics().expect("an answer").is_empty());

    for added in [
        proxy.with_bandwidth("upstream".into(), 1_000_000, 1.0),
        proxy.with_slow_close("downstream".into(), 1, 1.0),
        proxy.with_slicer("upstream".into(), 100, 10, 1, 1.0),
        proxy.with_timeout("downstream".into(), 50, 0.0),
        proxy.with_limit_data("downstream".into(), 1, 1.0),
    ] {
        assert!(!added.toxics().expect("an answer").is_empty());
    }
    let kinds: Vec<String> =
        proxy.toxics().expect("an answer").into_iter().map(|toxic| toxic.r#type).collect();
    // Those of the client's direction first.
    assert_eq!(kinds, ["bandwidth", "slicer", "slow_close", "timeout", "limit_data"]);
    proxy
        .apply(|| {
            let mut stream = connect(&proxy);
            ping(&mut stream);
            assert_eq!(stream.read(&mut [0]).expect("an orderly end"), 0);
        })
        .expect("they can be removed");

    let listen: SocketAddr = proxy.proxy_pack.listen.parse().expect("an address");
    proxy.with_down(|| assert!(TcpStream::connect(listen).is_err())).expect("it can be turned off and on");
    ping(&mut connect(&proxy));
    proxy.disable().expect("it can be turned off");
    client.reset().expect("an answer");
    ping(&mut connect(&proxy));
    println!("all well");
}
