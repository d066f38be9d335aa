use proptest::collection::vec;
use proptest::option::weighted;
use proptest::prelude::*;

use super::fair::{Claim, Standing, water_fill};
use super::*;

const RESOURCES: ResourceIx = 2;

fn quota() -> impl Strategy<Value = Quota> {
    (0_i64..40, weighted(0.4, 0_i64..30), weighted(0.4, 0_i64..30)).prop_map(|(nominal, borrowing_limit, lending_limit)| Quota {
        nominal,
        borrowing_limit,
        lending_limit,
    })
}

/// A tree of up to 12 queues: each hangs below the root or below one that was listed before it.
fn tree() -> impl Strategy<Value = Tree> {
    vec((any::<prop::sample::Index>(), quota(), quota(), 1_u32..4000), 1..12).prop_map(|queues| {
        let queue = |(at, (parent, first, second, weight_milli)): (usize, (prop::sample::Index, Quota, Quota, u32))| QueueQuota {
            name: QueueName::from(format!("q{at}")),
            parent: Some(parent.index(at + 1)).filter(|parent| *parent < at).map(|parent| QueueName::from(format!("q{parent}"))),
            weight_milli,
            quotas: vec![(0, first), (1, second)],
        };
        Tree::build(RESOURCES, queues.into_iter().enumerate().map(queue).collect()).unwrap()
    })
}

/// Where, of what, how much; removals take back an earlier addition.
#[derive(Clone, Debug)]
enum Step {
    Add(prop::sample::Index, ResourceIx, i64),
    Remove(prop::sample::Index),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let add = (any::<prop::sample::Index>(), 0..RESOURCES, 0_i64..25)
        .prop_map(|(at, resource, amount)| Step::Add(at, resource, amount));
    vec(prop_oneof![3 => add, 2 => any::<prop::sample::Index>().prop_map(Step::Remove)], 0..60)
}

fn nodes(tree: &Tree) -> impl Iterator<Item = (NodeIx, ResourceIx)> + use<> {
    let len = u32::try_from(tree.len()).unwrap();
    (0..len).flat_map(|node| (0..RESOURCES).map(move |resource| (NodeIx(node), resource)))
}

/// Carries the steps out; with `gate`, only additions that fit. Checks `each` after every step.
fn play(
    tree: &mut Tree,
    steps: &[Step],
    gate: bool,
    mut each: impl FnMut(&Tree, &[(NodeIx, ResourceIx, i64)]) -> Result<(), TestCaseError>,
) -> Result<Vec<(NodeIx, ResourceIx, i64)>, TestCaseError> {
    let mut held = Vec::new();
    for step in steps {
        match step {
            Step::Add(at, resource, amount) => {
                let node = NodeIx(u32::try_from(at.index(tree.len())).unwrap());
                if !gate || tree.fits(node, &[(*resource, *amount)]).is_ok() {
                    tree.add_usage(node, *resource, *amount);
                    held.push((node, *resource, *amount));
                }
            }
            Step::Remove(which) if !held.is_empty() => {
                let (node, resource, amount) = held.swap_remove(which.index(held.len()));
                tree.remove_usage(node, resource, amount);
            }
            Step::Remove(_) => {}
        }
        each(tree, &held)?;
    }
    Ok(held)
}

/// The rule as it is written in the reference, by recursion, from the serialised quotas and nothing that the tree caches.
struct Literal<'a>(&'a Tree, &'a [(NodeIx, ResourceIx, i64)]);

impl Literal<'_> {
    fn subtree(&self, node: NodeIx, resource: ResourceIx) -> i64 {
        let lent: i64 =
            self.0.children(node).iter().map(|child| self.subtree(*child, resource) - self.local(*child, resource)).sum();
        self.0.quota(node, resource).nominal + lent
    }

    fn local(&self, node: NodeIx, resource: ResourceIx) -> i64 {
        let limit = self.0.quota(node, resource).lending_limit;
        limit.map_or(0, |limit| (self.subtree(node, resource) - limit).max(0))
    }

    fn usage(&self, node: NodeIx, resource: ResourceIx) -> i64 {
        let own: i64 = self.1.iter().filter(|held| (held.0, held.1) == (node, resource)).map(|held| held.2).sum();
        let below =
            self.0.children(node).iter().map(|child| (self.usage(*child, resource) - self.local(*child, resource)).max(0));
        own + below.sum::<i64>()
    }

    fn available(&self, node: NodeIx, resource: ResourceIx) -> i64 {
        let (subtree, usage) = (self.subtree(node, resource), self.usage(node, resource));
        let Some(parent) = self.0.parent(node) else { return subtree - usage };
        let local = self.local(node, resource);
        let limit = self.0.quota(node, resource).borrowing_limit;
        let most = limit.map_or(i64::MAX, |limit| subtree - local - (usage - local).max(0) + limit);
        (local - usage).max(0) + self.available(parent, resource).min(most)
    }

    fn potential(&self, node: NodeIx, resource: ResourceIx) -> i64 {
        let subtree = self.subtree(node, resource);
        let Some(parent) = self.0.parent(node) else { return subtree };
        let all = self.local(node, resource) + self.potential(parent, resource);
        self.0.quota(node, resource).borrowing_limit.map_or(all, |limit| all.min(subtree + limit))
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_tree_is_the_recursive_rule_after_any_steps(mut tree in tree(), steps in steps()) {
        let held = play(&mut tree, &steps, false, |_, _| Ok(()))?;
        let literal = Literal(&tree, &held);
        for (node, resource) in nodes(&tree) {
            prop_assert_eq!(tree.guaranteed(node, resource), literal.subtree(node, resource));
            prop_assert_eq!(tree.usage(node, resource), literal.usage(node, resource));
            prop_assert_eq!(tree.available(node, resource), literal.available(node, resource));
            prop_assert_eq!(tree.potential_available(node, resource), literal.potential(node, resource));
        }
    }

    #[test]
    fn what_went_through_fits_stays_within_quota_and_borrowing(mut tree in tree(), steps in steps()) {
        play(&mut tree, &steps, true, |tree, _| {
            for (node, resource) in nodes(tree) {
                let (usage, subtree) = (tree.usage(node, resource), tree.guaranteed(node, resource));
                let limit = if node == tree.root() { Some(0) } else { tree.quota(node, resource).borrowing_limit };
                prop_assert!(limit.is_none_or(|limit| usage <= subtree + limit), "node {node:?}: {usage} of {subtree} + {limit:?}");
                prop_assert!(tree.available(node, resource) >= 0);
            }
            Ok(())
        })?;
    }

    #[test]
    fn adding_never_makes_room_and_removing_undoes_it_exactly(
        mut tree in tree(), steps in steps(), at in any::<prop::sample::Index>(), resource in 0..RESOURCES, amount in 0_i64..50,
    ) {
        play(&mut tree, &steps, false, |_, _| Ok(()))?;
        let before = tree.clone();
        let node = NodeIx(u32::try_from(at.index(tree.len())).unwrap());
        tree.add_usage(node, resource, amount);
        for (node, resource) in nodes(&tree) {
            prop_assert!(tree.available(node, resource) <= before.available(node, resource));
        }
        tree.remove_usage(node, resource, amount);
        prop_assert_eq!(tree, before);
    }

    #[test]
    fn rebuilding_and_restoring_give_the_same_tree(mut tree in tree(), steps in steps()) {
        let held = play(&mut tree, &steps, false, |_, _| Ok(()))?;
        let mut again = Tree::build(RESOURCES, tree.queues.clone()).unwrap();
        for (node, resource, amount) in held.iter().rev() {
            again.add_usage(*node, *resource, *amount);
        }
        prop_assert_eq!(&again, &tree);
        prop_assert_eq!(&serde_json::from_str::<Tree>(&serde_json::to_string(&tree).unwrap()).unwrap(), &tree);
        prop_assert_eq!(&tree.rebuilt(tree.queues.clone()).unwrap(), &tree);
    }

    #[test]
    fn the_binding_limit_is_the_one_that_lifting_would_help(mut tree in tree(), steps in steps(), at in any::<prop::sample::Index>()) {
        play(&mut tree, &steps, true, |_, _| Ok(()))?;
        let node = NodeIx(u32::try_from(at.index(tree.len())).unwrap());
        let available = tree.available(node, 0);
        prop_assert_eq!(tree.levels(node, 0).map(|level| level.available).min(), Some(available));
        prop_assert!(tree.fits(node, &[(0, available)]).is_ok());
        let refused = tree.fits(node, &[(0, available + 1)]).unwrap_err();
        prop_assert_eq!(refused.available, available);
        prop_assert!(tree.path(node).any(|above| above == refused.node));
        if refused.limit != Limit::Capacity {
            let mut queues = tree.queues.clone();
            for (resource, quota) in &mut queues[refused.node.0 as usize].quotas {
                quota.borrowing_limit = quota.borrowing_limit.filter(|_| *resource != 0);
            }
            let lifted = tree.rebuilt(queues).unwrap();
            let others = tree.levels(node, 0).filter(|level| level.node != refused.node).map(|level| level.available).min();
            prop_assert_eq!(lifted.available(node, 0), others.unwrap());
        }
    }

    #[test]
    fn water_is_conserved_and_nobody_gets_more_than_asked(capacity in 0_i64..500, claims in claims()) {
        let shares = water_fill(capacity, 1, &claims);
        let asked: i64 = claims.iter().map(|claim| claim.request).sum();
        prop_assert_eq!(shares.iter().sum::<i64>(), capacity.min(asked));
        let due: i64 = claims.iter().map(|claim| claim.deserved.min(claim.request)).sum();
        for (share, claim) in shares.iter().zip(&claims) {
            prop_assert!((0..=claim.request).contains(share));
            prop_assert!(due > capacity || *share >= claim.deserved.min(claim.request));
        }
    }

    #[test]
    fn whole_units_leave_less_than_one_undivided(capacity in 0_i64..50_000, claims in vec(0_i64..20, 1..7)) {
        let claims: Vec<Claim> = claims.iter().map(|gpus| Claim { deserved: 0, request: gpus * 1000, standing: Standing::default() }).collect();
        let shares = water_fill(capacity, 1000, &claims);
        let asked: i64 = claims.iter().map(|claim| claim.request).sum();
        prop_assert!(shares.iter().all(|share| share % 1000 == 0));
        prop_assert_eq!(shares.iter().sum::<i64>(), (capacity - capacity % 1000).min(asked));
    }

    #[test]
    fn the_heavier_of_equals_never_gets_less(capacity in 0_i64..500, claims in claims(), heavier in 1_u64..50) {
        let mut claims = claims;
        let twin = Claim { standing: Standing { weight: claims[0].standing.weight + heavier, ..claims[0].standing }, ..claims[0] };
        claims.push(twin);
        let shares = water_fill(capacity, 1, &claims);
        prop_assert!(due(&claims) > capacity || shares[claims.len() - 1] >= shares[0], "{shares:?}");
    }

    #[test]
    fn more_weight_never_gives_less(capacity in 0_i64..500, claims in claims(), more in 1_u64..50) {
        let before = water_fill(capacity, 1, &claims);
        let mut heavier = claims.clone();
        heavier[0].standing.weight += more;
        let after = water_fill(capacity, 1, &heavier);
        prop_assert!(after[0] + 1 >= before[0], "{before:?} {after:?}: more than a rounding");
    }

    #[test]
    fn children_never_get_more_than_their_parent(tree in tree(), requests in vec(0_i64..80, 13), capacity in 0_i64..300) {
        let standing: Vec<Standing> = tree.queues.iter().map(|queue| Standing { priority: 0, weight: queue.weight_milli.into() }).collect();
        let shares = tree.fair_shares(0, capacity, 1, &requests, &standing);
        prop_assert!(shares[tree.root().0 as usize] <= capacity);
        for (node, _) in nodes(&tree) {
            let below: i64 = tree.children(node).iter().map(|child| shares[child.0 as usize]).sum();
            prop_assert!(below <= shares[node.0 as usize]);
        }
    }
}

fn due(claims: &[Claim]) -> i64 {
    claims.iter().map(|claim| claim.deserved.min(claim.request)).sum()
}

fn claims() -> impl Strategy<Value = Vec<Claim>> {
    let claim = (0_i64..40, 0_i64..120, 0_i32..3, 0_u64..20);
    vec(
        claim.prop_map(|(deserved, request, priority, weight)| Claim {
            deserved,
            request,
            standing: Standing { priority, weight },
        }),
        1..8,
    )
}
