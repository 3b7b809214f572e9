use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::{BUFFER, pipe};
use crate::config::TrafficLimits;
use crate::meters::{Ended, Meters};

fn limits(idle_s: u64, lifetime_s: u64) -> TrafficLimits {
    TrafficLimits {
        max_connections: 1,
        idle_s,
        lifetime_s,
    }
}

/// The caller's and the target's end of a pipe; each can hold `capacity` bytes that were not read yet.
fn start(
    capacity: usize,
    limits: TrafficLimits,
) -> (DuplexStream, DuplexStream, JoinHandle<Ended>) {
    let (caller, near_caller) = duplex(capacity);
    let (target, near_target) = duplex(capacity);
    let meters = Meters::new().forward("test");
    let task = tokio::spawn(async move { pipe(near_caller, near_target, limits, &meters).await });
    (caller, target, task)
}

#[tokio::test]
async fn keeps_half_close_in_both_orders() {
    for caller_first in [true, false] {
        let (caller, target, task) = start(64, limits(30, 30));
        let (mut first, mut second) = if caller_first {
            (caller, target)
        } else {
            (target, caller)
        };
        first.write_all(b"question").await.unwrap();
        first.shutdown().await.unwrap();
        let mut heard = String::new();
        second.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "question");
        // The other direction is still open, and stays so.
        sleep(Duration::from_millis(100)).await;
        second.write_all(b"answer").await.unwrap();
        second.shutdown().await.unwrap();
        let mut heard = String::new();
        first.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "answer");
        assert_eq!(task.await.unwrap(), Ended::Closed);
    }
}

#[tokio::test]
async fn passes_every_byte_in_order() {
    let (caller, target, task) = start(1000, limits(30, 30));
    let sent: Vec<u8> = (0..600_000_u32).flat_map(u32::to_le_bytes).collect();
    let expected = sent.clone();
    let echo = tokio::spawn(async move {
        let (mut read, mut write) = tokio::io::split(target);
        tokio::io::copy(&mut read, &mut write).await.unwrap();
        write.shutdown().await.unwrap();
    });
    let (mut read, mut write) = tokio::io::split(caller);
    let writer = tokio::spawn(async move {
        write.write_all(&sent).await.unwrap();
        write.shutdown().await.unwrap();
    });
    let mut heard = Vec::new();
    read.read_to_end(&mut heard).await.unwrap();
    assert!(heard == expected);
    writer.await.unwrap();
    echo.await.unwrap();
    assert_eq!(task.await.unwrap(), Ended::Closed);
}

#[tokio::test]
async fn a_slow_reader_does_not_grow_memory() {
    let capacity = 1000;
    let (mut caller, mut target, task) = start(capacity, limits(30, 30));
    // The target never reads: what can be sent is what the two streams and our one buffer hold.
    let mut sent = 0;
    while timeout(Duration::from_millis(200), caller.write_all(&[1; 100]))
        .await
        .is_ok()
    {
        sent += 100;
        assert!(sent <= 2 * capacity + BUFFER + 100, "{sent} bytes taken");
    }
    target.read_exact(&mut [0; 1]).await.unwrap();
    task.abort();
}

#[tokio::test]
async fn a_quiet_connection_is_cut() {
    let (mut caller, _target, task) = start(64, limits(1, 30));
    let start = Instant::now();
    caller.write_all(b"x").await.unwrap();
    assert_eq!(task.await.unwrap(), Ended::Idle);
    let elapsed = start.elapsed();
    assert!(elapsed >= Duration::from_millis(990) && elapsed < Duration::from_secs(3));
    assert_eq!(caller.read(&mut [0; 1]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_connection_that_talks_is_not_idle() {
    let (mut caller, mut target, task) = start(64, limits(1, 30));
    for _ in 0..8 {
        caller.write_all(b"x").await.unwrap();
        target.read_exact(&mut [0; 1]).await.unwrap();
        sleep(Duration::from_millis(300)).await;
    }
    caller.shutdown().await.unwrap();
    target.shutdown().await.unwrap();
    assert_eq!(task.await.unwrap(), Ended::Closed);
}

#[tokio::test]
async fn a_stalled_reader_is_idle() {
    let (mut caller, _target, task) = start(64, limits(1, 30));
    let flood = tokio::spawn(async move { while caller.write_all(&[0; 64]).await.is_ok() {} });
    let ended = timeout(Duration::from_secs(4), task).await.unwrap();
    assert_eq!(ended.unwrap(), Ended::Idle);
    flood.await.unwrap();
}

#[tokio::test]
async fn a_busy_connection_ends_with_its_lifetime() {
    let (mut caller, mut target, task) = start(64, limits(30, 1));
    let talk = tokio::spawn(async move { while caller.write_all(b"x").await.is_ok() {} });
    let listen = tokio::spawn(async move { while target.read_exact(&mut [0; 1]).await.is_ok() {} });
    assert_eq!(task.await.unwrap(), Ended::Lifetime);
    talk.await.unwrap();
    listen.await.unwrap();
}

#[tokio::test]
async fn the_targets_last_words_arrive_although_it_stopped_listening() {
    let (mut caller, mut target, task) = start(64, limits(30, 30));
    target.write_all(b"refused").await.unwrap();
    drop(target);
    caller.write_all(b"more").await.ok();
    let mut heard = String::new();
    caller.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, "refused");
    drop(caller);
    timeout(Duration::from_secs(2), task)
        .await
        .unwrap()
        .unwrap();
}
