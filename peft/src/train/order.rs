//! Which examples a step sees.

use peftml_linalg::Seed;

/// Batches of `count` examples: every epoch in an order of its own, drawn below a seed. The last batch of
/// an epoch may be smaller. A batch that takes all examples takes them in their order.
pub(super) struct Order {
    seed: Seed,
    count: usize,
    batch: usize,
}

impl Order {
    pub(super) fn new(seed: Seed, count: usize, batch: usize) -> Self {
        Self { seed, count, batch }
    }

    /// The epoch and the examples of batch number `number`, counted over all epochs.
    pub(super) fn batch(&self, number: u64) -> (u64, Vec<usize>) {
        if self.batch >= self.count {
            return (number, (0..self.count).collect());
        }
        let batches = self.count.div_ceil(self.batch) as u64;
        let (epoch, within) = (number / batches, (number % batches) as usize);
        let mut order: Vec<usize> = (0..self.count).collect();
        self.seed.child(epoch).stream().shuffle(&mut order);
        let start = within * self.batch;
        (epoch, order[start..(start + self.batch).min(self.count)].to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_shows_every_example_once_and_the_next_another_order() {
        let order = Order::new(Seed::root(1), 10, 4);
        let epoch = |first: u64| -> Vec<usize> {
            (first..first + 3).flat_map(|number| order.batch(number).1).collect()
        };
        let (one, two) = (epoch(0), epoch(3));
        assert_ne!(one, two);
        for mut numbers in [one, two] {
            numbers.sort_unstable();
            assert_eq!(numbers, (0..10).collect::<Vec<_>>());
        }
        assert_eq!(order.batch(5).0, 1);
        assert_eq!(Order::new(Seed::root(1), 3, 5).batch(7), (7, vec![0, 1, 2]));
    }
}
