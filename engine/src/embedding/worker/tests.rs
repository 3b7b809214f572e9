use std::{sync::mpsc, time::Duration};

use tokio::sync::oneshot;

use super::*;
use crate::{
    embedding::Input,
    gate::{self, Gate},
};

/// Answers each input with its length, and says of each pass how many inputs it had, once it is let on.
struct Counted {
    passes: mpsc::Sender<Vec<usize>>,
    go: mpsc::Receiver<Outcome>,
}

enum Outcome {
    Right,
    Fails,
    Panics,
}

impl Encoder for Counted {
    fn encode(&self, batch: &Batch<'_>) -> candle_core::Result<Vec<Vec<f32>>> {
        let lengths: Vec<usize> = batch
            .inputs
            .iter()
            .map(|input| input.tokens.len())
            .collect();
        self.passes.send(lengths.clone()).unwrap();
        match self.go.recv().unwrap() {
            Outcome::Right => Ok(lengths.iter().map(|length| vec![*length as f32]).collect()),
            Outcome::Fails => candle_core::bail!("as scripted"),
            Outcome::Panics => panic!("as scripted"),
        }
    }
}

struct Bench {
    gate: Gate<EmbedJob>,
    passes: mpsc::Receiver<Vec<usize>>,
    go: mpsc::Sender<Outcome>,
    shared: Arc<Shared>,
    thread: std::thread::JoinHandle<()>,
}

type Answer = oneshot::Receiver<Result<Embeddings, EngineError>>;

impl Bench {
    fn new(budget: usize, max_requests: usize) -> Self {
        let (gate, inbox) = gate::queue(100);
        let (passes, seen) = mpsc::channel();
        let (go, wait) = mpsc::channel();
        let shared = Arc::new(Shared::new());
        let encoder = Counted { passes, go: wait };
        let worker = EmbedWorker::new(encoder, budget, max_requests, Arc::clone(&shared));
        Self {
            gate,
            passes: seen,
            go,
            shared,
            thread: std::thread::spawn(move || worker.run(inbox)),
        }
    }

    fn ask(&self, caller: &str, lengths: &[usize]) -> Answer {
        let (answer, result) = oneshot::channel();
        let input = |length: &usize| Input {
            tokens: vec![1; *length].into(),
            second: None,
        };
        self.gate.reserve().unwrap().fill(EmbedJob {
            inputs: lengths.iter().map(input).collect(),
            caller: caller.into(),
            answer,
        });
        result
    }

    fn pass(&self) -> Vec<usize> {
        let seen = self.passes.recv_timeout(Duration::from_secs(5));
        seen.expect("a pass")
    }

    fn end(self) -> crate::Stats {
        self.gate.close();
        drop(self.go);
        self.thread.join().unwrap();
        self.shared.counters.snapshot(0)
    }
}

fn vectors(answer: Answer) -> Vec<f32> {
    let answer = answer.blocking_recv().unwrap().unwrap();
    answer.vectors.into_iter().flatten().collect()
}

#[test]
fn requests_that_wait_share_a_pass_and_get_their_own_vectors_in_order() {
    let bench = Bench::new(100, 16);
    let first = bench.ask("a", &[3]);
    assert_eq!(bench.pass(), [3]);
    let others = [
        bench.ask("a", &[5, 50, 7]),
        bench.ask("b", &[11]),
        bench.ask("c", &[60, 13]),
    ];
    bench.go.send(Outcome::Right).unwrap();
    assert_eq!(vectors(first), [3.0]);
    let mut second = bench.pass();
    assert!(second.iter().sum::<usize>() <= 100);
    bench.go.send(Outcome::Right).unwrap();
    second.extend(bench.pass());
    bench.go.send(Outcome::Right).unwrap();
    second.sort_unstable();
    assert_eq!(second, [5, 7, 11, 13, 50, 60]);
    let [a, b, c] = others;
    assert_eq!(vectors(a), [5.0, 50.0, 7.0]);
    assert_eq!(vectors(b), [11.0]);
    assert_eq!(vectors(c), [60.0, 13.0]);
    let stats = bench.end();
    assert_eq!(
        (
            stats.completed,
            stats.embedded_inputs,
            stats.prompt_tokens,
            stats.running
        ),
        (4, 7, 149, 0)
    );
}

#[test]
fn who_hangs_up_leaves_before_the_next_pass() {
    let bench = Bench::new(10, 16);
    let gone = bench.ask("a", &[10, 10, 10]);
    assert_eq!(bench.pass(), [10]);
    let waits = bench.ask("b", &[4]);
    let also_gone = bench.ask("b", &[9]);
    drop((gone, also_gone));
    bench.go.send(Outcome::Right).unwrap();
    assert_eq!(bench.pass(), [4]);
    bench.go.send(Outcome::Right).unwrap();
    assert_eq!(vectors(waits), [4.0]);
    let stats = bench.end();
    assert_eq!((stats.completed, stats.cancelled), (1, 2));
}

#[test]
fn a_failed_pass_costs_the_requests_in_it_and_no_other() {
    for outcome in [Outcome::Fails, Outcome::Panics] {
        let panics = matches!(outcome, Outcome::Panics);
        let bench = Bench::new(10, 16);
        let failed = bench.ask("a", &[8, 8]);
        assert_eq!(bench.pass(), [8]);
        let waits = bench.ask("a", &[6]);
        bench.go.send(outcome).unwrap();
        assert_eq!(
            failed.blocking_recv().unwrap().err(),
            Some(EngineError::Internal)
        );
        assert_eq!(bench.pass(), [6]);
        bench.go.send(Outcome::Right).unwrap();
        assert_eq!(vectors(waits), [6.0]);
        let failed = *bench.shared.health.borrow() == crate::Health::Failed;
        assert_eq!(failed, panics);
        let stats = bench.end();
        assert_eq!((stats.completed, stats.failed), (1, 1));
    }
}

#[test]
fn a_caller_with_many_long_requests_does_not_keep_another_out() {
    let bench = Bench::new(10, 2);
    let mut others: Vec<_> = (0..4).map(|_| bench.ask("a", &[10; 5])).collect();
    assert_eq!(bench.pass(), [10]);
    let late = bench.ask("b", &[2]);
    bench.go.send(Outcome::Right).unwrap();
    // All are even at first, and then it is the turn of who has had the least.
    assert_eq!(bench.pass(), [10]);
    bench.go.send(Outcome::Right).unwrap();
    assert!(bench.pass().contains(&2));
    bench.go.send(Outcome::Right).unwrap();
    assert_eq!(vectors(late), [2.0]);
    bench.pass();
    others.clear();
    bench.go.send(Outcome::Right).unwrap();
    bench.end();
}

#[test]
fn abort_ends_what_runs_and_what_waits() {
    let bench = Bench::new(10, 1);
    let running = bench.ask("a", &[10, 10]);
    bench.pass();
    let waiting = bench.ask("a", &[10]);
    bench.shared.abort.store(true, Ordering::Relaxed);
    bench.go.send(Outcome::Right).unwrap();
    for answer in [running, waiting] {
        assert_eq!(
            answer.blocking_recv().unwrap().err(),
            Some(EngineError::Stopped)
        );
    }
    assert_eq!(bench.end().failed, 2);
}

#[test]
fn numbers_that_are_none_are_no_answer() {
    struct Broken;
    impl Encoder for Broken {
        fn encode(&self, batch: &Batch<'_>) -> candle_core::Result<Vec<Vec<f32>>> {
            Ok(batch.inputs.iter().map(|_| vec![f32::NAN]).collect())
        }
    }
    let (gate, inbox) = gate::queue(1);
    let (answer, result) = oneshot::channel();
    let inputs = vec![Input {
        tokens: vec![1].into(),
        second: None,
    }];
    gate.reserve().unwrap().fill(EmbedJob {
        inputs,
        caller: "a".into(),
        answer,
    });
    gate.close();
    EmbedWorker::new(Broken, 10, 1, Arc::new(Shared::new())).run(inbox);
    assert_eq!(
        result.blocking_recv().unwrap().err(),
        Some(EngineError::Internal)
    );
}
