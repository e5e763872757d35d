//! The store as the registry of the fleet.

use squall_experiments::protocol::Refusal;

use super::registry::{Answer, Member, Registry, no_such_token, revoked, taken};
use crate::store::{NewHost, Store, StoreError};

impl Registry for Store {
    fn enrol<'a>(&'a self, token: &'a str, host: Member) -> Answer<'a, ()> {
        Box::pin(async move {
            let Member { name, key, serial, labels, zone, cell } = host;
            if self.host(&name).await.map_err(broken)?.is_some_and(|kept| kept.revoked_at.is_none()) {
                return match self.rejoin_host(&name, &key, &serial).await {
                    Err(StoreError::Clash(_)) => Err(taken(&name)),
                    // It was revoked meanwhile.
                    Err(StoreError::Missing(_)) => Err(no_such_token()),
                    rejoined => rejoined.map_err(broken),
                };
            }
            let new = NewHost { name: name.clone(), labels, zone, cell, serial, key };
            match self.enrol(token, new).await {
                Err(StoreError::Token) => Err(no_such_token()),
                Err(StoreError::Clash(_)) => Err(taken(&name)),
                enrolled => enrolled.map_err(broken),
            }
        })
    }

    fn admit<'a>(&'a self, host: &'a str, serial: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            let kept = self.host(host).await.map_err(broken)?;
            let kept = kept.filter(|kept| kept.accepts(serial)).ok_or_else(|| revoked(host))?;
            if kept.has_before(serial) {
                self.settle_host(host, serial).await.map_err(broken)?;
            }
            Ok(())
        })
    }

    fn renew<'a>(&'a self, host: &'a str, by: &'a str, serial: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            match self.renew_host(host, by, serial).await {
                Err(StoreError::Missing(_)) => Err(revoked(host)),
                renewed => renewed.map_err(broken),
            }
        })
    }
}

/// What a host is told of a store that does not work; its administrator is told more.
fn broken(error: StoreError) -> Refusal {
    tracing::error!(%error, "the store cannot say who belongs to the fleet");
    Refusal::new("the controller's store does not answer", "try again; its log says more")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{NewJoinToken, Where};

    #[tokio::test]
    async fn the_store_keeps_who_joined_by_which_certificate() {
        let directory = std::env::temp_dir().join(format!("squall-kept-{}", std::process::id()));
        let store = Store::open(&Where::Sqlite(directory.clone())).unwrap();
        let token = NewJoinToken {
            id: "t".to_owned(),
            hash: "hash".to_owned(),
            made_by: "test".to_owned(),
            expires_at: u64::MAX / 4,
            uses: 1,
        };
        store.new_join_token(token).await.unwrap();
        let registry: &dyn Registry = &store;
        let member = |key: &str, serial: &str| Member {
            name: "web-1".to_owned(),
            key: key.to_owned(),
            serial: serial.to_owned(),
            ..Member::default()
        };
        assert!(registry.enrol("other", member("k", "1")).await.is_err());
        assert!(registry.admit("web-1", "1").await.is_err());
        registry.enrol("hash", member("k", "1")).await.unwrap();
        assert_eq!(registry.enrol("hash", member("l", "2")).await, Err(taken("web-1")));
        registry.enrol("hash", member("k", "2")).await.unwrap();
        registry.admit("web-1", "1").await.unwrap();
        registry.admit("web-1", "2").await.unwrap();
        assert_eq!(registry.admit("web-1", "1").await, Err(revoked("web-1")));
        registry.renew("web-1", "2", "3").await.unwrap();
        // The answers to this and to the next question are lost, so that it comes and asks with the same again.
        for serial in ["4", "5"] {
            registry.admit("web-1", "2").await.unwrap();
            registry.renew("web-1", "2", serial).await.unwrap();
        }
        registry.admit("web-1", "2").await.unwrap();
        registry.admit("web-1", "4").await.unwrap();
        for over in ["2", "3"] {
            assert_eq!(registry.admit("web-1", over).await, Err(revoked("web-1")), "{over}");
            assert_eq!(registry.renew("web-1", over, "6").await, Err(revoked("web-1")), "{over}");
        }
        // However often nothing of it arrives, what the host has stays good.
        for serial in 10..60 {
            registry.renew("web-1", "4", &serial.to_string()).await.unwrap();
        }
        registry.admit("web-1", "4").await.unwrap();
        registry.admit("web-1", "59").await.unwrap();
        assert_eq!(registry.admit("web-1", "58").await, Err(revoked("web-1")));
        store.revoke_host("web-1").await.unwrap();
        for serial in ["4", "59"] {
            assert_eq!(registry.admit("web-1", serial).await, Err(revoked("web-1")));
        }
        assert_eq!(registry.renew("web-1", "59", "60").await, Err(revoked("web-1")));
        assert_eq!(registry.enrol("hash", member("k", "5")).await, Err(no_such_token()));
        let entries = store.audit_page(1, 10).await.unwrap();
        let joins = entries.iter().map(|entry| (entry.who.as_str(), &entry.what["host-joined"]["again"]));
        let again = serde_json::json!(true);
        let joins: Vec<_> = joins.collect();
        assert_eq!(
            joins,
            [("host web-1", &serde_json::Value::Null), ("host web-1", &again)],
            "refusals are none"
        );
        drop(store);
        std::fs::remove_dir_all(directory).unwrap();
    }
}
