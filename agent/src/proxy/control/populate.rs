//! Many proxies at once, as a configuration holds them.

use std::net::SocketAddr;

use super::{Control, ControlError, Proxy, Shown, Wanted};
use crate::proxy::address;

impl Control {
    /// Makes those proxies that are not there yet as they are wanted. At the first that cannot be made it stops; what
    /// was done is returned either way. One that was there instead goes on until the other listens.
    pub fn populate(&self, wanted: &[Wanted]) -> (Vec<Shown>, Result<(), ControlError>) {
        for (at, wanted) in wanted.iter().enumerate() {
            if let Err(ControlError::Missing(field)) = wanted.require() {
                return (Vec::new(), Err(ControlError::Missing(format!("{field} at proxy {}", at + 1))));
            }
        }
        let mut done = Vec::new();
        for wanted in wanted {
            match self.populate_one(wanted) {
                Ok(shown) => done.push(shown),
                Err(error) => return (done, Err(error)),
            }
        }
        (done, Ok(()))
    }

    fn populate_one(&self, wanted: &Wanted) -> Result<Shown, ControlError> {
        let mut fresh = Proxy::read(wanted)?;
        let addresses = self.addresses(&wanted.listen);
        let mut proxies = self.lock();
        let Some(present) = proxies.get_mut(&wanted.name) else {
            return self.add(&mut proxies, fresh, wanted.enabled, addresses);
        };
        let same = present.listen == wanted.listen
            || addresses.as_ref().is_ok_and(|addresses| address::is_same(&present.listen, addresses));
        if same && present.upstream == wanted.upstream {
            return Ok(present.shown());
        }
        if wanted.enabled {
            self.replace(present, &mut fresh, &addresses?)?;
        }
        self.close(present);
        Ok(self.keep(&mut proxies, fresh))
    }

    /// Opens a proxy in the place of one that is there, which stays where that cannot be done.
    fn replace(
        &self,
        present: &mut Proxy,
        fresh: &mut Proxy,
        addresses: &[SocketAddr],
    ) -> Result<(), ControlError> {
        let Err(error) = self.open(fresh, addresses) else { return Ok(()) };
        let held = present.running.as_ref().map(|running| running.listen);
        let Some(held) = held.filter(|held| addresses.iter().any(|address| address.port() == held.port()))
        else {
            return Err(error);
        };
        // The address may be taken by the one that is there, which has to let go of it first.
        self.close(present);
        self.open(fresh, addresses).inspect_err(|_| {
            // Somebody else may have it by now: then it stays off.
            if let Err(error) = self.open(present, &[held]) {
                tracing::warn!("`{}` is turned off: {error}", present.name);
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::thread;
    use std::time::Duration;

    use super::*;

    /// Says its name to everybody, and then sends back what it is sent.
    fn dependency(name: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address").to_string();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || {
                    let (mut from, mut to) = (stream.try_clone().expect("a descriptor"), stream);
                    let _ = to.write_all(name.as_bytes());
                    std::io::copy(&mut from, &mut to)
                });
            }
        });
        address
    }

    fn wanted(listen: &str, upstream: &str) -> Wanted {
        let (name, listen) = ("shop".to_owned(), listen.to_owned());
        Wanted { name, listen, upstream: upstream.to_owned(), enabled: true, ..Wanted::default() }
    }

    fn said(stream: &mut TcpStream) -> String {
        let mut name = [0; 3];
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a time-out");
        stream.read_exact(&mut name).expect("the dependency speaks");
        String::from_utf8_lossy(&name).into_owned()
    }

    #[test]
    fn a_proxy_that_is_there_goes_on_where_the_other_cannot_listen() {
        let (old, new) = (dependency("old"), dependency("new"));
        let control = Control::start(7).expect("threads");
        let shown = control.create(&wanted("127.0.0.1:0", &old)).expect("a proxy");
        let mut carried = TcpStream::connect(&shown.listen).expect("it listens");
        assert_eq!(said(&mut carried), "old");
        let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let taken = taken.local_addr().map(|address| (taken, address.to_string())).expect("an address");
        let (done, result) = control.populate(&[wanted(&taken.1, &new)]);
        let error = result.expect_err("the address is taken").to_string();
        assert!(done.is_empty() && error.contains("already in use"), "{error}");
        let kept = control.get("shop").expect("it is there");
        assert_eq!((kept.enabled, &kept.listen, &kept.upstream), (true, &shown.listen, &old));
        carried.write_all(b"abc").expect("it is open");
        assert_eq!(said(&mut carried), "abc");
        // Where its own port is wanted at another address that is taken, it comes back.
        let port = shown.listen.rsplit(':').next().expect("a port");
        let beside = TcpListener::bind(format!("127.0.0.2:{port}")).expect("a free address");
        let (_, result) = control.populate(&[wanted(&format!("127.0.0.2:{port}"), &new)]);
        assert!(result.is_err());
        assert_eq!(said(&mut TcpStream::connect(&shown.listen).expect("it listens")), "old");
        drop(beside);
        // Its own address is taken by nobody but itself.
        let (done, result) = control.populate(&[wanted(&shown.listen, &new)]);
        result.expect("its address is free for it");
        assert_eq!((&done[0].listen, &done[0].upstream), (&shown.listen, &new));
        assert_eq!(said(&mut TcpStream::connect(&shown.listen).expect("it listens")), "new");
        assert_eq!(control.list().len(), 1);
    }
}
