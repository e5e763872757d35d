//! Names become addresses by this host's own resolver: hosts file, search domains, name servers.

use std::collections::BTreeSet;
use std::time::Duration;

use squall_experiments::protocol::Refusal;

use crate::host::aim::Resolved;

/// How long one name may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Every address of every name, IPv4 and IPv6. One name that does not resolve refuses all.
pub async fn addresses(names: BTreeSet<String>) -> Result<Resolved, Refusal> {
    let mut resolved = Resolved::new();
    for name in names {
        let refusal = |why: String| {
            Refusal::new(
                format!("the name `{name}` does not resolve on this host: {why}"),
                "check the spelling and this host's resolver (`getent ahosts NAME`)",
            )
        };
        let looked_up = tokio::time::timeout(PATIENCE, tokio::net::lookup_host((name.as_str(), 0))).await;
        let addresses = looked_up
            .map_err(|_| refusal(format!("no answer within {} s", PATIENCE.as_secs())))?
            .map_err(|error| refusal(error.to_string()))?;
        let addresses: BTreeSet<_> = addresses.map(|address| address.ip().to_canonical()).collect();
        resolved.insert(name.clone(), addresses.into_iter().collect());
    }
    Ok(resolved)
}
