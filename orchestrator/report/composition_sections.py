"""What the report shows of architectures of components: pictures, numbers, and what the paper has found."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator import formatting as f
from orchestrator.report.composition_figures import WIDE, columns, picture
from orchestrator.report.compositions import Composition, compositions, flops_of, is_teachers_form
from orchestrator.report.data import RunData
from orchestrator.report.views import Column, Fold, Grid, Part, Plot, Plots
from spaces.components import views
from spaces.components.space import ComponentsSpace


def pictured(data: RunData, space: ComponentsSpace) -> list[Part]:
    """What was found and chosen, beside what the search began with."""
    shown = compositions(data, space)
    parts: list[Part] = [*_pictures(shown, space), _table(data, shown, space)]
    if len(shown) > 1:
        parts += [_beside_the_paper(shown[1:], space), _texts(shown)]
    return parts


def _pictures(shown: Sequence[Composition], space: ComponentsSpace) -> list[Plots]:
    """All of them side by side; below each other where they have many columns."""
    plots = [
        Plot(
            f"one-shot-architecture-{index}",
            picture(one.architecture, space.options),
            f"What is kept of each layer of {one.title}: {one.architecture}",
            one.title,
        )
        for index, one in enumerate(shown)
    ]
    neurons, channels = space.options.slice_size, space.options.query_key_size
    caption = (
        "One row a layer, the first at the top. Coloured cells are kept, pale ones are dropped; blank, with a word in "
        "it, is what is gone as a whole. Heads and feed-forward slices of one colour and number stand beside each "
        "other, on one input; those of the next number stand behind them, on what they have added (no number: all "
        f"beside each other). A slice of a feed-forward has {f.plural(neurons, 'neuron')}. Q·K: slices of queries and "
        f"keys, {f.plural(channels, 'channel')} of each head; none kept is uniform attention, the mean of all tokens. "
        "M: the mean that the LayerNorm subtracts. Point at a cell to read what it is."
    )
    if columns(space.options) < WIDE:
        return [Plots(tuple(plots), caption)]
    last = len(plots) - 1
    return [Plots((plot,), caption if index == last else "") for index, plot in enumerate(plots)]


def _table(data: RunData, shown: Sequence[Composition], space: ComponentsSpace) -> Grid:
    """One row for each architecture."""
    predicted = any(one.latency_ms is not None for one in shown)
    names = ["encoder parameters", "of all", "FLOPs", *(["predicted latency"] if predicted else [])]
    names += ["layers", "heads", "uniform attention", "neurons", "in series"]
    whole, layers = space.largest(), space.options.shape.num_layers
    most = views.genes(whole, space.options)
    rows = []
    for one in shown:
        genes, cost = views.genes(one.architecture, space.options), _parameters(space, one)
        texts = [one.title, f.count(cost), f.percent(cost / _parameters(space, Composition((), whole)))]
        texts.append(f.percent(flops_of(one.architecture, data, space) / flops_of(whole, data, space)))
        texts += [f.milliseconds(one.latency_ms)] if predicted else []
        texts += [f"{genes['layers']} of {layers}", f"{genes['heads']} of {most['heads']}"]
        texts += [f.count(len(_uniform(one))), f"{genes['neurons']:,} of {most['neurons']:,}"]
        texts.append(f.count(genes["attention_blocks"] + genes["feed_forward_blocks"]))
        rows.append(tuple(texts))
    largest = "the teacher’s own form" if is_teachers_form(space) else "the largest architecture"
    caption = (
        f"Shares are of {largest}, behind the embeddings. Uniform attention: layers whose attention has neither "
        "queries nor keys. Neurons: of all feed-forwards. In series: blocks that wait for each other, one for each "
        "stage of an attention or a feed-forward."
    )
    return Grid((Column("architecture"), *(Column(name, is_number=True) for name in names)), tuple(rows), caption)


def _beside_the_paper(shown: Sequence[Composition], space: ComponentsSpace) -> Grid:
    """What is known of the paper's architectures, and the same of this run's in numbers."""
    findings = {
        "LayerNorms hardly ever keep the mean": [_means(one) for one in shown],
        "early layers drop queries and keys": [_uniform_layers(one) for one in shown],
        "queries and keys can be narrower": [_query_keys(one, space) for one in shown],
        "feed-forward slices stand behind each other": [_behind(one) for one in shown],
    }
    caption = (
        "What is known, in words alone, of the architectures that Finding Fast Transformers (Tsai et al., 2020) found "
        "for BERT on a TPU, and what this run’s have of it."
    )
    columns_ = (Column("found in the paper", is_sentence=True), *(Column(one.title) for one in shown))
    return Grid(columns_, tuple((name, *texts) for name, texts in findings.items()), caption)


def _means(one: Composition) -> str:
    norms = [choice.mean for choice in one.architecture.sublayers if not choice.is_absent]
    return f"{sum(norms)} of {f.plural(len(norms), 'LayerNorm')} keep it"


def _uniform(one: Composition) -> list[int]:
    """The layers, from 1, whose attention is the mean of all tokens."""
    layers = enumerate(one.architecture.layers, start=1)
    return [number for number, layer in layers if not layer.attention.is_absent and not layer.attention.query_key]


def _uniform_layers(one: Composition) -> str:
    found = _uniform(one)
    if not found:
        return "none do"
    layers = f"layer{'s' if len(found) > 1 else ''} {', '.join(map(str, found))}"
    return f"{layers} of {len(one.architecture.layers)}"


def _query_keys(one: Composition, space: ComponentsSpace) -> str:
    present = [layer.attention for layer in one.architecture.layers if not layer.attention.is_absent]
    kept = sum(len(choice.query_key) for choice in present)
    return f"{kept} of {f.plural(len(present) * space.options.query_key_slices, 'slice')} kept"


def _behind(one: Composition) -> str:
    present = [layer.feed_forward for layer in one.architecture.layers if not layer.feed_forward.is_absent]
    several = sum(len(choice.stages) > 1 for choice in present)
    return f"in {several} of {f.plural(len(present), 'feed-forward')}"


def _texts(shown: Sequence[Composition]) -> Fold:
    lines = (f"{one.title}:\n{one.architecture}" for one in shown)
    return Fold("These architectures as text", "\n\n".join(lines))


def _parameters(space: ComponentsSpace, one: Composition) -> int:
    return space.cost(one.architecture).encoder_parameters
