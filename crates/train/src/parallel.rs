//! Independent pieces of work on all cores, results in order.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::{ThreadPool, ThreadPoolBuilder};

/// `work(0)`, …, `work(n - 1)`: on the CPU as many at once as rayon has threads, elsewhere one after the other, since such a device is
/// parallel in itself and takes its work from one queue.
///
/// As long as there is a piece for every thread, each is done by one thread alone, without passing kernels and products on to others and waiting
/// for them; those that are left then share all threads. Each thread is the only one of a pool of its own: one that had others, while it waits
/// inside a backward pass for a matrix product, would take up another pass and wait for a lock that it holds itself. For the same reason `work` must
/// not come back here.
pub(crate) fn beside_each_other<T: Send>(
    on_cpu: bool,
    n: usize,
    work: impl Fn(usize) -> T + Sync,
) -> Vec<T> {
    if !on_cpu {
        return (0..n).map(work).collect();
    }
    let next = AtomicUsize::new(0);
    let until = |end: usize| {
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= end {
                return done;
            }
            done.push((index, work(index)));
        }
    };
    let pools = alone();
    let whole = n.checked_rem(pools.len()).map_or(0, |left| n - left);
    let busy = if whole == 0 { &[] } else { pools };
    let mut done = at_once(busy.iter().map(|pool| || pool.install(|| until(whole))));
    next.store(whole, Ordering::Relaxed);
    let threads = rayon::current_num_threads().min(n - whole);
    done.extend(at_once((0..threads).map(|_| || until(n))));
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}

/// Everything that comes of some functions, each on a thread of its own.
fn at_once<T: Send, F: FnOnce() -> Vec<T> + Send>(functions: impl Iterator<Item = F>) -> Vec<T> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = functions.map(|function| scope.spawn(function)).collect();
        threads
            .into_iter()
            .flat_map(|thread| {
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
            .collect()
    })
}

/// Pools of one thread each, as many as rayon has threads; fewer where the system gives no more.
fn alone() -> &'static [ThreadPool] {
    static POOLS: OnceLock<Vec<ThreadPool>> = OnceLock::new();
    POOLS.get_or_init(|| {
        (0..rayon::current_num_threads())
            .map_while(|_| ThreadPoolBuilder::new().num_threads(1).build().ok())
            .collect()
    })
}

#[cfg(test)]
mod tests {
    use super::beside_each_other;

    #[test]
    fn results_come_in_order() {
        for on_cpu in [true, false] {
            let squares = beside_each_other(on_cpu, 100, |i| i * i);
            assert_eq!(squares, (0..100).map(|i| i * i).collect::<Vec<_>>());
            assert!(beside_each_other(on_cpu, 0, |i| i).is_empty());
        }
    }
}
