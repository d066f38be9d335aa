//! `tidegate up` from arguments to exit: everything is checked before anything is started.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::serve::ListenerExt;
use tidegate_api::control::RouterConfig;
use tidegate_api::manifest::{Object, Problems};
use tidegate_api::model_info::ModelInfo;
use tidegate_api::view;
use tidegate_core::Engine;
use tidegate_core::engine::RestoreError;
use tidegate_runtime::admin::{self, Readiness};
use tidegate_runtime::control::{Published, Service};
use tidegate_runtime::exit::Error;
use tidegate_runtime::ledger::{Ledger, Loaded};
use tidegate_runtime::page;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::Args;
use crate::admission::{self, Admission};
use crate::agent::{self, Agent};
use crate::devices;
use crate::example::Example;
use crate::http::{self, Api};
use crate::machine::Machine;
use crate::manifests::{self, Sourced};
use crate::metrics::Metrics;
use crate::objects::Objects;
use crate::unit::UnitId;
use crate::units::{UnitEvent, UnitState, UnitStatus, Units};
use crate::world::{Handle, Places, Publisher, Setup, World};

/// Messages that may wait for the world: far more than one round of reports from a full box.
const INBOX: usize = 4096;
/// Decisions that a slow listener may lag.
const LAG: usize = 256;
/// What a router that listens elsewhere gets to answer what it has.
const OLD_ROUTER_GRACE: Duration = Duration::from_secs(15);
/// Ended spans of this age and younger are shown.
const SHOWN_SPANS_MS: u64 = 3_600_000;

/// See [`crate::run`].
pub async fn run(args: Args, shutdown: CancellationToken) -> Result<(), Error> {
    let Args { file, example, no_load, simulate_gpus, listen, data } = args;
    let example = example.map(|name| Example::find(&name)).transpose()?;
    let simulate = simulate_gpus.or_else(|| example.as_ref().map(|example| example.devices().to_owned()));
    let mut new = manifests::read(&file)?;
    let machine = Machine::with(devices::find(simulate.as_deref()).map_err(Error::from)?);
    if let Some(example) = &example {
        // Preparing takes minutes the first time: a port in use is said before. A named data directory may have a router there.
        if data.is_none() {
            drop(TcpListener::bind(listen).map_err(|e| port_in_use(listen, &e))?);
        }
        new.extend(example.manifests(&shutdown).await?);
    }
    let data = data.unwrap_or_else(|| example.as_ref().map_or_else(|| PathBuf::from(".tidegate"), Example::data));
    let ledger = Ledger::open(&data).await?;
    let data = data.canonicalize().map_err(|e| Error::failed(format!("use {}", data.display()), e))?;
    let here = Here { listen, data, machine, ledger, new };
    Box::pin(here.run(example.filter(|_| !no_load), shutdown)).await
}

/// A box whose arguments are fine.
struct Here {
    listen: SocketAddr,
    data: PathBuf,
    machine: Machine,
    ledger: Ledger,
    new: Vec<Sourced>,
}

impl Here {
    async fn run(self, example: Option<Example>, shutdown: CancellationToken) -> Result<(), Error> {
        let Self { listen, data, machine, ledger, new } = self;
        let now = crate::world::now_ms();
        let loaded = ledger.load(now.saturating_sub(SHOWN_SPANS_MS)).await?;
        let engine = restored(&loaded, &data)?;
        let exe = admission::executable().map_err(|e| Error::failed("find this program", e))?;
        let (objects, unreadable) = Objects::load(&loaded.objects);
        for object in unreadable {
            tracing::error!(object, "kept in the ledger, but this version cannot read it; apply it again");
        }
        let api_listener = bind_api(loaded.values.get("port").and_then(|port| port.parse().ok()))?;
        let address = api_listener.local_addr().map_err(|e| Error::failed("bind the API", e))?;
        let url = format!("http://{address}");

        let checked = Checked::of(&Admission { exe: &exe, machine: &machine, known: &objects }, new).await?;
        let (unit_events, mut unit_inbox) = mpsc::unbounded_channel();
        // Bound before units are opened, as that already ends what is broken: a port in use starts and stops nothing.
        let free = TcpListener::bind(listen);
        let opened = Units::open(&data.join("units"), exe.clone(), unit_events).await;
        let (units, found) = opened.map_err(|e| Error::failed("open the units", e))?;
        let (listener, found) = front_door(free, listen, &url, &units, found, &mut unit_inbox).await?;
        let real = machine.devices.iter().any(|device| !device.simulated);
        let agent = if real { Some(Agent::find(&found)?) } else { None };
        let agent_address = agent.as_ref().map(|agent| agent.address);
        // Port 0 has become a real one.
        let listen = listener.as_ref().and_then(|bound| bound.local_addr().ok()).unwrap_or(listen);
        let places = Places { exe: exe.clone(), data: data.clone(), url, listen };

        let (publisher, shown, state, decisions) = channels();
        let metrics = Metrics::new().map_err(|e| Error::failed("register metrics", e))?;
        let registry = metrics.registry();
        let machine_for_api = Arc::new(machine.clone());
        let port = tidegate_runtime::ledger::Commit {
            values: vec![("port".to_owned(), address.port().to_string())],
            ..tidegate_runtime::ledger::Commit::default()
        };
        ledger.commit(&port).await?;
        let Checked { infos, apply } = checked;
        let setup = Setup {
            ledger,
            loaded,
            engine,
            objects,
            machine,
            units: units.clone(),
            found,
            places: places.clone(),
            publisher,
            metrics,
            infos,
            apply,
            listener,
            agent,
        };
        let world = World::new(setup)?;

        let (inbox, messages) = mpsc::channel(INBOX);
        let sessions = CancellationToken::new();
        let readiness = Readiness::default();
        let api = Api {
            world: Handle(inbox.clone()),
            state,
            decisions,
            units,
            machine: machine_for_api,
            exe: Arc::new(exe),
            shutdown: sessions.clone(),
        };
        let control = tonic::service::Routes::new(Service::new(inbox.clone(), shown, sessions.clone())).into_axum_router();
        let app = http::routes(api).merge(admin::routes(registry, readiness.clone())).merge(page::routes()).merge(control);
        // Last: gRPC's own answer to an unknown path is a 200.
        let app = app.fallback(http::unknown);
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(api_listener, app, sessions.clone()));
        if let Some(address) = agent_address {
            let watch = agent::watch(address, Handle(inbox.clone()), sessions.clone());
            tasks.spawn(async move {
                watch.await;
                Ok(())
            });
        }
        if let Some(example) = example {
            tasks.spawn(example.play(listen, Handle(inbox.clone()), shutdown.clone()));
        }
        drop(inbox);
        readiness.set(true);
        announce(listen, &data);
        let off = readiness.clone();
        let unready = shutdown.clone();
        tasks.spawn(async move {
            unready.cancelled().await;
            off.set(false);
            Ok(())
        });
        let done = Box::pin(world.run(messages, unit_inbox, shutdown.clone())).await;
        shutdown.cancel();
        sessions.cancel();
        while let Some(ended) = tasks.join_next().await {
            ended.map_err(|e| Error::failed("run a task", e))??;
        }
        done
    }
}

/// The engine as it was left in the ledger; a new one if there is none.
fn restored(loaded: &Loaded, data: &Path) -> Result<Engine, Error> {
    let Some(snapshot) = &loaded.engine else { return Ok(Engine::default()) };
    let refused = |what: String| {
        let remedy = "name another directory, or use the program that made it";
        Error::Usage(format!("--data {}: ledger.db {what}; {remedy}", data.display()))
    };
    Engine::restore(snapshot).map_err(|e| match e {
        RestoreError::Version { .. } => refused(format!("is of another version of Tidegate: {e}")),
        RestoreError::Unreadable(source) => refused(format!("holds what this version cannot read ({source})")),
    })
}

/// New objects that passed admission, with what all models' files hold.
struct Checked {
    infos: BTreeMap<String, ModelInfo>,
    apply: Vec<Sourced>,
}

impl Checked {
    async fn of(admission: &Admission<'_>, new: Vec<Sourced>) -> Result<Self, Error> {
        let usage = |problems: Problems| Error::Usage(problems.to_string());
        let mut infos = admission.check(&new).await.map_err(usage)?;
        // Models of the ledger: a file that broke meanwhile keeps its model from being served, not the box from starting.
        for stored in admission.known.iter() {
            let Object::Model(model) = &stored.object else { continue };
            if infos.contains_key(stored.object.name()) {
                continue;
            }
            match admission::inspect(admission.exe, Path::new(&model.spec.source.onnx)).await {
                Ok(info) => drop(infos.insert(stored.object.name().to_owned(), info)),
                Err(what) => tracing::error!(
                    model = stored.object.name(),
                    file = model.spec.source.onnx,
                    what,
                    "the model cannot be served"
                ),
            }
        }
        Ok(Self { infos, apply: new })
    }
}

fn channels() -> (Publisher, Published, watch::Receiver<Arc<view::State>>, broadcast::Sender<view::Decision>) {
    let (router, router_seen) = watch::channel(RouterConfig::default());
    let (draining, draining_seen) = watch::channel(BTreeSet::new());
    let (state, state_seen) = watch::channel(Arc::new(view::State::default()));
    let (decisions, _) = broadcast::channel(LAG);
    let publisher = Publisher { router, draining, state, decisions: decisions.clone() };
    (publisher, Published { router: router_seen, draining: draining_seen }, state_seen, decisions)
}

/// The port of the world before, so that its children find this one; any other if that is taken.
fn bind_api(former: Option<u16>) -> Result<TcpListener, Error> {
    let bound = match former.map(|port| TcpListener::bind(("127.0.0.1", port))) {
        Some(Ok(listener)) => Ok(listener),
        Some(Err(e)) => {
            tracing::warn!(error = %e, "the former API port is taken; what still runs from before is started anew");
            TcpListener::bind(("127.0.0.1", 0))
        }
        None => TcpListener::bind(("127.0.0.1", 0)),
    };
    bound.map_err(|e| Error::failed("bind the API", e))
}

/// The socket where clients connect: free, or held by a router from before that is adopted. A router from before that
/// was told of another address is ended first.
async fn front_door(
    free: std::io::Result<TcpListener>,
    listen: SocketAddr,
    url: &str,
    units: &Units,
    found: Vec<UnitStatus>,
    events: &mut mpsc::UnboundedReceiver<UnitEvent>,
) -> Result<(Option<TcpListener>, Vec<UnitStatus>), Error> {
    let router = found.iter().find(|status| status.spec.id.as_str() == "router" && matches!(status.state, UnitState::Running(_)));
    let Some(router) = router else {
        return free.map(|listener| (Some(listener), found)).map_err(|e| port_in_use(listen, &e));
    };
    let label = |key: &str| router.spec.labels.get(key).map(String::as_str);
    if label("listen") == Some(&listen.to_string()) && label("url") == Some(url) {
        return Ok((None, found));
    }
    let id = router.spec.id.clone();
    end(units, &id, events).await?;
    let listener = TcpListener::bind(listen).map_err(|e| port_in_use(listen, &e))?;
    Ok((Some(listener), units.all()))
}

fn port_in_use(listen: SocketAddr, e: &std::io::Error) -> Error {
    Error::Usage(format!("--listen {listen}: {e}; stop what listens there, or name another address"))
}

/// Ends a unit and forgets it. Other events that come meanwhile are in the statuses that are read next.
async fn end(units: &Units, id: &UnitId, events: &mut mpsc::UnboundedReceiver<UnitEvent>) -> Result<(), Error> {
    units.stop(id, OLD_ROUTER_GRACE).map_err(|e| Error::failed("end the router from before", e))?;
    while let Some(event) = events.recv().await {
        if matches!(event, UnitEvent::Exited { id: of, .. } if of == *id) {
            break;
        }
    }
    units.forget(id).map_err(|e| Error::failed("forget the router from before", e))
}

async fn serve(listener: TcpListener, app: axum::Router, stop: CancellationToken) -> Result<(), Error> {
    listener.set_nonblocking(true).map_err(|e| Error::failed("serve the API", e))?;
    let listener = tokio::net::TcpListener::from_std(listener).map_err(|e| Error::failed("serve the API", e))?;
    // Without it the small answers of the control sessions wait for the other side's delayed acknowledgements.
    let listener = listener.tap_io(|connection| {
        if let Err(e) = connection.set_nodelay(true) {
            tracing::debug!(error = %e, "a connection stays without TCP_NODELAY");
        }
    });
    axum::serve(listener, app).with_graceful_shutdown(stop.cancelled_owned()).await.map_err(|e| Error::failed("serve the API", e))
}

fn announce(listen: SocketAddr, data: &Path) {
    eprintln!();
    eprintln!("  tidegate is up");
    eprintln!("    page, API, OpenAI and Open Inference Protocol   http://{listen}/");
    eprintln!("    data, checkpoints, logs                         {}", data.display());
    eprintln!("    look                                            tidegate top --server http://{listen}");
    eprintln!("    end in order                                    Ctrl-C");
    eprintln!();
}
