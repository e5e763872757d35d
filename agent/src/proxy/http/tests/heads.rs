//! Messages with many headers, or long ones, pass: whether they are too many is for the dependency to say.

use hyper::header::HeaderName;

use super::*;

/// So many headers, each with a value of so many bytes.
fn much(request: &mut Request<Flow>, count: usize, length: usize) {
    for number in 0..count {
        let name = HeaderName::from_bytes(format!("x-much-{number}").as_bytes()).expect("a name");
        let value = HeaderValue::from_str(&"v".repeat(length)).expect("a value");
        request.headers_mut().insert(name, value);
    }
}

/// How many of them came back, and how long their values are together.
fn came(response: &Response<Incoming>) -> (usize, usize) {
    let headers = response.headers().iter().filter(|(name, _)| name.as_str().starts_with("x-much-"));
    headers.fold((0, 0), |(count, length), (_, value)| (count + 1, length + value.len()))
}

#[test]
fn many_headers_and_long_ones_pass_in_both_directions_and_both_versions() {
    run(async {
        let world = World::new().await;
        for (count, length) in [(150, 10), (1, 100 << 10), (150, 700)] {
            let mut sender = world.first().await;
            let mut request = post("/headers", "");
            much(&mut request, count, length);
            let response = sender.send_request(request).await.expect("an answer");
            assert_eq!((response.status().as_u16(), came(&response)), (200, (count, count * length)));
            let mut sender = world.second().await;
            let mut request = over_second("/headers", "");
            much(&mut request, count, length);
            let response = sender.send_request(request).await.expect("an answer");
            assert_eq!((response.status().as_u16(), came(&response)), (200, (count, count * length)));
        }
    });
}
