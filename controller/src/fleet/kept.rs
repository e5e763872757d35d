//! The store as the registry of the fleet.

use squall_experiments::protocol::Refusal;

use super::registry::{Answer, Member, Registry, no_such_token, revoked, taken};
use crate::store::{NewHost, Store, StoreError};

impl Registry for Store {
    fn enrol<'a>(&'a self, token: &'a str, host: Member) -> Answer<'a, ()> {
        Box::pin(async move {
            let Member { name, key, serial, labels, zone, cell } = host;
            match self.host(&name).await.map_err(broken)? {
                Some(kept) if kept.revoked_at.is_none() && kept.key == key => {
                    return self.renew_host(&name, &serial).await.map_err(broken);
                }
                Some(kept) if kept.revoked_at.is_none() => return Err(taken(&name)),
                _ => {}
            }
            let new = NewHost { name: name.clone(), labels, zone, cell, serial, key };
            match self.enrol(token, new).await {
                Ok(()) => {}
                Err(StoreError::Token) => return Err(no_such_token()),
                Err(StoreError::Clash(_)) => return Err(taken(&name)),
                Err(error) => return Err(broken(error)),
            }
            let joined = serde_json::json!({ "host-joined": { "host": name } });
            self.audit(&format!("host {name}"), joined).await.map_err(broken).map(drop)
        })
    }

    fn admit<'a>(&'a self, host: &'a str, serial: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            let kept = self.host(host).await.map_err(broken)?;
            let kept = kept.filter(|kept| kept.accepts(serial)).ok_or_else(|| revoked(host))?;
            if kept.serial == serial && kept.previous_serial.is_some() {
                self.settle_host(host, serial).await.map_err(broken)?;
            }
            Ok(())
        })
    }

    fn renew<'a>(&'a self, host: &'a str, serial: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            match self.renew_host(host, serial).await {
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
        registry.renew("web-1", "3").await.unwrap();
        registry.admit("web-1", "2").await.unwrap();
        store.revoke_host("web-1").await.unwrap();
        for serial in ["2", "3"] {
            assert_eq!(registry.admit("web-1", serial).await, Err(revoked("web-1")));
        }
        assert_eq!(registry.renew("web-1", "4").await, Err(revoked("web-1")));
        assert_eq!(registry.enrol("hash", member("k", "5")).await, Err(no_such_token()));
        drop(store);
        std::fs::remove_dir_all(directory).unwrap();
    }
}
