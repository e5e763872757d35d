//! Where proxies listen: names are asked before the table of proxies is taken, so that nobody waits for a resolver who does
//! not ask for that name.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::MutexGuard;

use super::{Control, ControlError, Proxy};

/// The addresses of a listen text, or what is wrong with it.
pub(super) type Resolve = dyn Fn(&str) -> Result<Vec<SocketAddr>, String> + Send + Sync;
/// What was found out, by listen text. It is kept: several proxies may be told to listen at the same one.
pub(super) type Known = HashMap<String, Result<Vec<SocketAddr>, String>>;

impl Control {
    pub(super) fn addresses(&self, listen: &str) -> Result<Vec<SocketAddr>, ControlError> {
        (self.resolve)(listen).map_err(ControlError::Listen)
    }

    /// The proxies, once the addresses of those that are meant are known. What they are called may change while they are
    /// asked for: then it is looked again.
    pub(super) fn known(
        &self,
        known: &mut Known,
        meant: impl Fn(&Proxy) -> bool,
    ) -> MutexGuard<'_, BTreeMap<String, Proxy>> {
        loop {
            let proxies = self.lock();
            let asked = proxies.values().filter(|proxy| meant(proxy) && !known.contains_key(&proxy.listen));
            let asked: BTreeSet<String> = asked.map(|proxy| proxy.listen.clone()).collect();
            if asked.is_empty() {
                return proxies;
            }
            drop(proxies);
            for listen in asked {
                let addresses = (self.resolve)(&listen);
                known.insert(listen, addresses);
            }
        }
    }

    /// Turns a proxy on or off.
    pub(super) fn turn(&self, proxy: &mut Proxy, enabled: bool, known: &Known) -> Result<(), ControlError> {
        match (proxy.running.is_some(), enabled) {
            (false, true) => {
                let addresses = known.get(&proxy.listen).cloned();
                let addresses = addresses.unwrap_or_else(|| (self.resolve)(&proxy.listen));
                self.open(proxy, &addresses.map_err(ControlError::Listen)?)
            }
            (true, false) => {
                self.close(proxy);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};
    use std::sync::{Arc, Mutex};
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::proxy::address;
    use crate::proxy::control::{Difference, Wanted};
    use crate::proxy::observations::Observations;

    const PATIENCE: Duration = Duration::from_secs(20);

    type Act = fn(&Control) -> Result<(), ControlError>;

    fn later<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> Receiver<T> {
        let (sender, receiver) = channel();
        thread::spawn(move || sender.send(act()));
        receiver
    }

    #[test]
    fn a_name_that_is_asked_for_long_holds_up_nobody_else() {
        let (enter, entered) = channel();
        let (release, held) = channel::<()>();
        let (enter, held) = (Mutex::new(enter), Mutex::new(held));
        let resolve = move |listen: &str| {
            let Some(port) = listen.strip_prefix("slow.test:") else { return address::resolve(listen) };
            enter.lock().expect("it is whole").send(()).expect("somebody waits");
            let _ = held.lock().expect("it is whole").recv();
            address::resolve(&format!("127.0.0.1:{port}"))
        };
        let control = Control::resolving(7, Observations::alone(0), Box::new(resolve)).expect("threads");
        let wanted =
            Wanted { name: "slow".to_owned(), upstream: "127.0.0.1:1".to_owned(), ..Wanted::default() };
        let acts: [Act; 2] = [Control::reset, |control| {
            control.update("slow", &Difference { enabled: Some(true), ..Difference::default() }).map(drop)
        }];
        for act in acts {
            control
                .create(&Wanted { listen: "slow.test:0".to_owned(), ..wanted.clone() })
                .expect("it is off");
            let acting = control.clone();
            let acted = later(move || act(&acting));
            entered.recv_timeout(PATIENCE).expect("its name is asked for");
            let asking = control.clone();
            let listed = later(move || asking.list().len()).recv_timeout(PATIENCE);
            release.send(()).expect("it is waited for");
            assert_eq!(listed, Ok(1), "others are answered meanwhile");
            acted.recv_timeout(PATIENCE).expect("it ends").expect("it is turned on");
            let shown = control.get("slow").expect("it is there");
            assert!(shown.enabled && shown.listen.starts_with("127.0.0.1:"), "{shown:?}");
            control.delete("slow").expect("it is there");
        }
        let _: Arc<Control> = control;
    }

    #[test]
    fn a_name_that_several_proxies_have_is_asked_for_once_and_before_anybody_waits() {
        let (asked, held) = (Arc::new(Mutex::new(0)), Arc::new(Mutex::new(None::<Arc<Control>>)));
        let (count, whose) = (asked.clone(), held.clone());
        let resolve = move |listen: &str| {
            let Some(port) = listen.strip_prefix("slow.test:") else { return address::resolve(listen) };
            *count.lock().expect("it is whole") += 1;
            let control = whose.lock().expect("it is whole").clone().expect("it is made");
            // Who holds the table while a name is asked for would keep this one waiting.
            let list = later(move || control.list().len()).recv_timeout(PATIENCE);
            assert!(list.is_ok(), "the name is asked for while the proxies are held");
            address::resolve(&format!("127.0.0.1:{port}"))
        };
        let control = Control::resolving(7, Observations::alone(0), Box::new(resolve)).expect("threads");
        *held.lock().expect("it is whole") = Some(control.clone());
        for name in ["one", "two", "three"] {
            let wanted = Wanted {
                name: name.to_owned(),
                listen: "slow.test:0".to_owned(),
                upstream: "127.0.0.1:1".to_owned(),
                ..Wanted::default()
            };
            control.create(&wanted).expect("it is off");
        }
        control.reset().expect("all are turned on");
        assert!(control.list().iter().all(|shown| shown.enabled), "{:?}", control.list());
        assert_eq!(*asked.lock().expect("it is whole"), 1);
        held.lock().expect("it is whole").take();
    }
}
