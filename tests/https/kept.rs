//! A controller keeps one connection to each agent between its calls.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use netemctl::{agent::Limits, wire::GetStamp};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};

use super::site::{PATIENCE, Site, name};

/// The number of connections through the proxy of [`count_connections`].
#[derive(Default)]
struct ConnectionCount {
    made: AtomicUsize,
    open: AtomicUsize,
}

/// Puts a proxy before the agent and counts its connections.
async fn count_connections(site: &mut Site) -> Arc<ConnectionCount> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (count, agent) = (Arc::<ConnectionCount>::default(), site.address);
    site.address = listener.local_addr().unwrap();
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            counted.made.fetch_add(1, Ordering::Relaxed);
            counted.open.fetch_add(1, Ordering::Relaxed);
            let counted = Arc::clone(&counted);
            tokio::spawn(async move {
                let mut far = TcpStream::connect(agent).await.unwrap();
                drop(copy_bidirectional(&mut near, &mut far).await);
                counted.open.fetch_sub(1, Ordering::Relaxed);
            });
        }
    });
    count
}

#[tokio::test]
async fn one_call_after_the_other_is_made_on_one_connection_until_the_agent_closes_it() {
    let mut site = Site::up(Limits { idle: Duration::from_secs(3), ..Limits::default() }).await;
    let count = count_connections(&mut site).await;
    let fleet = site.fleet(Some(&site.controller()));
    for round in 1..=2 {
        for _ in 0..5 {
            fleet.call_one(PATIENCE, &name("n1"), GetStamp {}).await.unwrap();
        }
        assert_eq!(count.made.load(Ordering::Relaxed), round);
        // The agent closes a connection that is idle for longer than `Limits::idle`.
        let closed = async {
            while count.open.load(Ordering::Relaxed) > 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, closed).await.expect("the agent closes the idle connection");
    }
}

#[tokio::test]
async fn calls_at_the_same_time_do_not_wait_for_each_other() {
    let mut site = Site::up(Limits::default()).await;
    let count = count_connections(&mut site).await;
    let fleet = site.fleet(Some(&site.controller()));
    let (node, ask) = (name("n1"), || GetStamp {});
    let (one, other) = tokio::join!(fleet.call_one(PATIENCE, &node, ask()), fleet.call_one(PATIENCE, &node, ask()));
    assert_eq!(one.unwrap(), other.unwrap());
    assert_eq!(count.made.load(Ordering::Relaxed), 2);
}
