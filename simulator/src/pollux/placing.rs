//! Which nodes: a job that keeps its number of GPUs keeps its GPUs; the others are packed on few nodes, largest first.
//!
//! Before that, jobs on one node are moved to other partly used nodes as long as the newly placed ones lack whole free
//! nodes. Every move costs its job a restart. Assumes that what is wanted fits the cluster in sum.

/// Places jobs on `nodes` alike nodes; `held` and the result are `(node, GPUs)` of each job.
pub fn place(held: &[&[(u32, u32)]], wanted: &[u32], nodes: u32, gpus_per_node: u32) -> Vec<Vec<(u32, u32)>> {
    let mut board = Board { free: (0..nodes).map(|_| gpus_per_node).collect(), gpus_per_node };
    let mut placed: Vec<Vec<(u32, u32)>> = Vec::new();
    let mut moving: Vec<(usize, u32)> = Vec::new();
    for (at, (held, wanted)) in held.iter().zip(wanted).enumerate() {
        let stays = held.iter().map(|(_, gpus)| gpus).sum::<u32>() == *wanted;
        if !stays {
            moving.push((at, *wanted));
        }
        placed.push(if stays { held.to_vec() } else { Vec::new() });
    }
    placed.iter().flatten().for_each(|(node, gpus)| board.take(*node, *gpus));
    let whole_nodes: u32 = moving.iter().map(|(_, wanted)| wanted / gpus_per_node.max(1)).sum();
    while board.whole() < whole_nodes && board.clear_one(&mut placed) {}
    moving.sort_by_key(|(at, wanted)| (std::cmp::Reverse(*wanted), *at));
    for (at, wanted) in moving {
        placed.iter_mut().skip(at).take(1).for_each(|nodes| *nodes = board.pack(wanted));
    }
    placed
}

/// Free GPUs by node.
struct Board {
    free: Vec<u32>,
    gpus_per_node: u32,
}

impl Board {
    fn take(&mut self, node: u32, gpus: u32) {
        self.free.iter_mut().skip(node as usize).take(1).for_each(|free| *free = free.saturating_sub(gpus));
    }

    fn whole(&self) -> u32 {
        u32::try_from(self.free.iter().filter(|free| **free == self.gpus_per_node).count()).unwrap_or(u32::MAX)
    }

    fn nodes(&self) -> impl Iterator<Item = (u32, u32)> {
        (0..).zip(self.free.iter().copied())
    }

    /// The node with fewest free GPUs that still has so many; not an empty one if `used`.
    fn tightest(&self, gpus: u32, used: bool, but: Option<u32>) -> Option<u32> {
        let fits = |node: u32, free: u32| free >= gpus && (!used || free < self.gpus_per_node) && Some(node) != but;
        self.nodes().filter(|(node, free)| fits(*node, *free)).min_by_key(|(node, free)| (*free, *node)).map(|(node, _)| node)
    }

    /// Empties the partly used node with most free GPUs whose jobs all fit on other partly used nodes.
    fn clear_one(&mut self, placed: &mut [Vec<(u32, u32)>]) -> bool {
        let mut partly: Vec<(u32, u32)> = self.nodes().filter(|(_, free)| (1..self.gpus_per_node).contains(free)).collect();
        partly.sort_by_key(|(node, free)| (std::cmp::Reverse(*free), *node));
        partly.into_iter().any(|(node, _)| self.clear(node, placed))
    }

    fn clear(&mut self, node: u32, placed: &mut [Vec<(u32, u32)>]) -> bool {
        let on = |nodes: &[(u32, u32)]| nodes.iter().any(|(on, _)| *on == node);
        let before = self.free.clone();
        let mut moves = Vec::new();
        for (at, nodes) in placed.iter().enumerate().filter(|(_, nodes)| on(nodes)) {
            let target = match nodes.as_slice() {
                [(_, gpus)] => self.tightest(*gpus, true, Some(node)).map(|to| (to, *gpus)),
                _ => None,
            };
            let Some((to, gpus)) = target else {
                self.free = before;
                return false;
            };
            self.take(to, gpus);
            moves.push((at, (to, gpus)));
        }
        for (at, to) in moves {
            placed.iter_mut().skip(at).take(1).for_each(|nodes| *nodes = vec![to]);
        }
        self.free.iter_mut().skip(node as usize).take(1).for_each(|free| *free = self.gpus_per_node);
        true
    }

    /// Whole nodes first, the rest on the tightest node that holds it, else spread over the emptiest.
    fn pack(&mut self, mut gpus: u32) -> Vec<(u32, u32)> {
        let mut nodes = Vec::new();
        while gpus > 0 {
            let most = || self.nodes().max_by_key(|(node, free)| (*free, std::cmp::Reverse(*node))).map(|(node, _)| node);
            let Some(node) = self.tightest(gpus.min(self.gpus_per_node), false, None).or_else(most) else { break };
            let free = self.free.get(node as usize).copied().unwrap_or(0);
            if free == 0 {
                break;
            }
            let count = free.min(gpus);
            self.take(node, count);
            gpus -= count;
            nodes.push((node, count));
        }
        nodes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_keeps_its_size_keeps_its_gpus_and_others_take_whole_nodes() {
        let placed = place(&[&[(1, 2)], &[]], &[2, 8], 4, 4);
        assert_eq!(placed, [vec![(1, 2)], vec![(0, 4), (2, 4)]]);
    }

    #[test]
    fn small_jobs_make_room_for_a_job_that_needs_whole_nodes() {
        let placed = place(&[&[(0, 1)], &[(1, 1)], &[]], &[1, 1, 4], 2, 4);
        assert_eq!(placed, [vec![(1, 1)], vec![(1, 1)], vec![(0, 4)]]);
    }

    #[test]
    fn a_small_job_goes_where_least_is_left() {
        let placed = place(&[&[(0, 1)], &[(1, 2)], &[]], &[1, 2, 2], 3, 4);
        assert_eq!(placed.last(), Some(&vec![(1, 2)]));
    }

    #[test]
    fn what_fits_nowhere_in_one_piece_is_spread() {
        let placed = place(&[&[(0, 3)], &[(1, 3)], &[]], &[3, 3, 2], 2, 4);
        assert_eq!(placed.last(), Some(&vec![(0, 1), (1, 1)]));
    }
}
