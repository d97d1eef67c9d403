"""Pre-training a BERT on the corpus by predicting masked tokens, so that a run needs no teacher from elsewhere.

Shape legend: B batch, T tokens, N masked positions, V vocabulary.

The teacher of NAS-BERT is such a BERT (12 layers, 768 wide, masked-LM loss only, no next-sentence prediction).
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import BertWordPieceTokenizer
from torch import Tensor
from transformers import AutoTokenizer, BertConfig, BertForMaskedLM, BertTokenizer, PreTrainedTokenizerBase

from spaces.encoder_shape import EncoderShape
from trainers.corpus import PackedCorpus
from trainers.errors import TrainingInputError
from trainers.losses import masked_lm_loss
from trainers.masking import Masking, accuracy_of
from trainers.meters import IntervalMeter
from trainers.optimisation import OptimiserSettings, apply_step, make_optimiser
from trainers.precision import Precision, autocast
from trainers.students import load_own_tensors, own_tensors
from trainers.task import Row, TrainingTask
from trainers.teacher import Teacher, quieten_transformers, shape_of

DEFAULT_VOCABULARY_SIZE = 30_522
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_LARGEST_ALPHABET = 1_000
_KEY = "teacher.pretraining.vocabulary"


Documents = Callable[[], Iterable[str]]
"""Opens a text that may be read more than once."""


@dataclass(frozen=True)
class TeacherBlueprint:
    """A BERT that does not exist yet: its sizes and where its vocabulary comes from.

    Attributes:
        num_layers: Transformer layers.
        hidden_size: width of the residual stream.
        num_heads: attention heads a layer.
        intermediate_size: inner width of the feed-forward.
        max_positions: rows of the position embedding, the longest sequence in tokens.
        type_vocab_size: rows of the segment embedding.
        dropout: probability of all dropouts while it is trained.
        vocabulary: a ``vocab.txt`` or the folder of a BERT tokenizer; ``None`` to train one on the text.
        vocabulary_size: rows of the token embedding where the vocabulary is trained; a small text may fill fewer.
        lowercase: whether a vocabulary that is trained, or a plain ``vocab.txt``, is of lower-case text.
    """

    num_layers: int
    hidden_size: int
    num_heads: int
    intermediate_size: int
    max_positions: int = 512
    type_vocab_size: int = 2
    dropout: float = 0.1
    vocabulary: Path | None = None
    vocabulary_size: int = DEFAULT_VOCABULARY_SIZE
    lowercase: bool = True

    def config(self) -> BertConfig:
        """The configuration, known before anything is trained.

        Raises:
            TrainingInputError: the vocabulary is not there or is no BERT's.
        """
        size, padding = self.vocabulary_size, 0
        if self.vocabulary is not None:
            tokenizer = self._given_tokenizer(self.vocabulary)
            size, padding = len(tokenizer), int(tokenizer.pad_token_id or 0)
        return BertConfig(
            vocab_size=size,
            hidden_size=self.hidden_size,
            num_hidden_layers=self.num_layers,
            num_attention_heads=self.num_heads,
            intermediate_size=self.intermediate_size,
            max_position_embeddings=self.max_positions,
            type_vocab_size=self.type_vocab_size,
            hidden_dropout_prob=self.dropout,
            attention_probs_dropout_prob=self.dropout,
            pad_token_id=padding,
        )

    def shape(self) -> EncoderShape:
        """The teacher's sizes.

        Raises:
            TrainingInputError: the vocabulary is not there or is no BERT's.
        """
        return shape_of(self.config())

    def has_masked_lm_head(self) -> bool:
        """It will have one: that is what it is trained with."""
        return True

    def tokenizer(self, documents: Documents) -> PreTrainedTokenizerBase:
        """The given tokenizer, or one that is trained.

        Args:
            documents: opens the text to train on, which is read twice; not called where the vocabulary is given.

        Raises:
            TrainingInputError: the vocabulary is no BERT's, or there is no text to train one on.
        """
        if self.vocabulary is not None:
            return self._given_tokenizer(self.vocabulary)
        vocabulary = train_vocabulary(documents, self.vocabulary_size, self.lowercase)
        return BertTokenizer(vocab=vocabulary, do_lower_case=self.lowercase)

    def _given_tokenizer(self, source: Path) -> PreTrainedTokenizerBase:
        if source.is_dir() and ((source / "tokenizer.json").is_file() or (source / "tokenizer_config.json").is_file()):
            quieten_transformers()
            try:
                tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(str(source))
            except Exception as error:
                line = (str(error).strip().splitlines() or [type(error).__name__])[0]
                raise TrainingInputError(f"{_KEY}: the tokenizer in '{source}' cannot be loaded: {line}") from error
            lacking = [name for name in ("cls", "sep", "pad", "mask") if getattr(tokenizer, f"{name}_token") is None]
            if lacking:
                raise TrainingInputError(
                    f"{_KEY}: the tokenizer in '{source}' has no {lacking[0]}_token; expected a BERT tokenizer"
                )
            return tokenizer
        file = source / "vocab.txt" if source.is_dir() else source
        return BertTokenizer(vocab=_read_vocabulary(file), do_lower_case=self.lowercase)


def train_vocabulary(documents: Documents, size: int, lowercase: bool) -> dict[str, int]:
    """Train a WordPiece vocabulary, the same for the same text.

    The library numbers the pieces inside words as it meets them in a hash table, which is another order every time,
    and breaks ties by these numbers. So they are numbered here, and handed over together with the special tokens.

    Args:
        documents: opens the text, which is read twice.
        size: tokens at most.
        lowercase: whether the text is put into lower case, accents off.

    Raises:
        TrainingInputError: there is no text, or it has more characters than there are to be tokens.
    """
    learner = BertWordPieceTokenizer(lowercase=lowercase)
    counts: Counter[str] = Counter()
    for line in _lines(documents()):
        counts.update(learner.normalizer.normalize_str(line))
    inside = [character for character in counts if not (character.isspace() or _stands_alone(character))]
    if not inside:
        raise TrainingInputError("corpus.source: the corpus is empty; expected at least one document with text")
    frequent = sorted(inside, key=lambda character: (-counts[character], character))[:_LARGEST_ALPHABET]
    pieces = [f"##{character}" for character in sorted(frequent)]
    learner.train_from_iterator(
        _lines(documents()),
        vocab_size=size,
        min_frequency=2,
        limit_alphabet=_LARGEST_ALPHABET,
        special_tokens=[*SPECIAL_TOKENS, *pieces],
        show_progress=False,
    )
    vocabulary: dict[str, int] = learner.get_vocab()
    if len(vocabulary) > size:
        raise TrainingInputError(
            f"{_KEY}_size: found {size}, but the special tokens and characters of the text alone make "
            f"{len(vocabulary)}; set it to more"
        )
    return vocabulary


def _stands_alone(character: str) -> bool:
    """Whether BERT's tokenizers make a word of the character: punctuation and symbols of ASCII, other punctuation."""
    return (character.isascii() and not character.isalnum()) or unicodedata.category(character).startswith("P")


def _lines(documents: Iterable[str]) -> Iterator[str]:
    for document in documents:
        yield from (line for line in document.split("\n") if line.strip())


def _read_vocabulary(file: Path) -> dict[str, int]:
    if not file.is_file():
        raise TrainingInputError(
            f"{_KEY}: '{file}' does not exist; expected a vocab.txt, a folder with one or with a tokenizer.json, or "
            f"null to train a vocabulary on the corpus"
        )
    try:
        words = file.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise TrainingInputError(f"{_KEY}: '{file}' is not UTF-8 text: {error}; expected a token a line") from error
    vocabulary = {word: number for number, word in enumerate(words)}
    lacking = [token for token in SPECIAL_TOKENS if token not in vocabulary]
    if lacking or len(vocabulary) != len(words):
        found = f"no {lacking[0]}" if lacking else "a token twice"
        raise TrainingInputError(f"{_KEY}: '{file}' has {found}; expected a BERT vocabulary, a token a line")
    return vocabulary


def first_characters(documents: Iterable[str], characters: int | None) -> Iterator[str]:
    """Documents until so many characters have come, the last one whole; all for ``None``."""
    for document in documents:
        yield document
        if characters is not None:
            characters -= len(document)
            if characters <= 0:
                return


@dataclass(frozen=True)
class PretrainingSettings:
    """How a teacher is pre-trained.

    Attributes:
        batch_size: sequences of a step, all workers together.
        seed: of weights, data order, dropout and masking.
        precision: number format of forward passes.
        mask_probability: share of the tokens that are masked.
        optimiser: learning rate, steps and regularisation.
    """

    batch_size: int
    seed: int
    precision: Precision
    mask_probability: float
    optimiser: OptimiserSettings


@dataclass(frozen=True)
class PretrainingFactory:
    """Makes a worker's :class:`Pretraining` from folders; picklable.

    Attributes:
        folder: with ``config.json`` and the tokenizer.
        corpus_folder: a packed corpus.
        settings: how to train.
    """

    folder: Path
    corpus_folder: Path
    settings: PretrainingSettings

    def __call__(self, rank: int, world_size: int, device: torch.device) -> Pretraining:
        """Build the model at its random start and open the corpus."""
        torch.manual_seed(self.settings.seed)
        model = BertForMaskedLM(BertConfig.from_pretrained(self.folder))
        corpus = PackedCorpus(self.corpus_folder)
        return Pretraining(model, load_tokenizer(self.folder), corpus, self.settings, rank, world_size, device)


class Pretraining(TrainingTask):
    """Trains a BERT to predict masked tokens.

    Args:
        model: at its start.
        tokenizer: says what can be masked.
        corpus: training text.
        settings: how to train.
        rank: number of this worker.
        world_size: workers.
        device: where to train.
    """

    def __init__(
        self,
        model: BertForMaskedLM,
        tokenizer: PreTrainedTokenizerBase,
        corpus: PackedCorpus,
        settings: PretrainingSettings,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device | None = None,
    ) -> None:
        self.device = device or torch.device("cpu")
        self.model = model
        torch.nn.Module.to(model, self.device).train()
        self.corpus = corpus
        self.settings = settings
        self.rank, self.world_size = rank, world_size
        self.total_steps = settings.optimiser.total_steps
        self.optimiser = make_optimiser(model, settings.optimiser)
        self._masking = Masking.of_tokenizer(tokenizer, settings.mask_probability)
        self._meter = IntervalMeter()
        self._tokens = self._tokens_before = 0

    def step(self, step: int) -> None:
        """Mask a batch and learn to tell what was there."""
        settings = self.settings
        rows = self.corpus.step_rows(step, settings.batch_size, settings.seed, self.rank, self.world_size)
        noise = hash((settings.seed, step, self.rank))
        batch = self._masking.mask(*rows, noise).to(self.device)
        torch.manual_seed(noise)
        positions_BT, labels_N = batch.positions(), batch.labels()
        with autocast(settings.precision, self.device):
            encoded = self.model.bert(input_ids=batch.input_ids_BT, attention_mask=batch.attention_mask_BT)
            logits_NV = self.model.cls(encoded.last_hidden_state[positions_BT]).float()
        loss = masked_lm_loss(logits_NV, labels_N)
        loss.backward()
        apply_step(self.optimiser, settings.optimiser, step, [self.model])
        self._meter.add("loss", loss.item())
        self._meter.add("accuracy", accuracy_of(logits_NV.detach(), labels_N).item())
        self._tokens += int(rows[1].sum()) * self.world_size

    def rows(self, steps_done: int) -> list[Row]:
        """One row: means over the interval, and what the whole training has consumed."""
        means, seconds = self._meter.read()
        rate = (self._tokens - self._tokens_before) / seconds
        self._tokens_before = self._tokens
        return [
            {
                "stage": "teacher",
                "subject": "teacher",
                "step": steps_done,
                "loss": means["loss"],
                "masked_lm_loss": means["loss"],
                "masked_lm_accuracy": means["accuracy"],
                "learning_rate": self.settings.optimiser.learning_rate_at(steps_done - 1),
                "tokens": self._tokens,
                "tokens_per_second": rate,
                "workers": self.world_size,
            }
        ]

    def tensors(self) -> Mapping[str, Tensor]:
        """The model's weights, the tied table once."""
        return own_tensors(self.model)

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over the model's weights."""
        load_own_tensors(self.model, tensors)

    def optimiser_state(self) -> dict[str, Any]:
        """Adam's moments, the token count and the unfinished interval's sums."""
        return {"optimiser": self.optimiser.state_dict(), "tokens": self._tokens, "meter": self._meter.state()}

    def load_optimiser_state(self, state: Mapping[str, Any]) -> None:
        """Take over Adam's moments, the token count and the unfinished interval's sums."""
        self.optimiser.load_state_dict(state["optimiser"])
        self._tokens = self._tokens_before = state["tokens"]
        self._meter.load_state(state["meter"])


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer that was saved beside a configuration."""
    quieten_transformers()
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(str(folder))
    return tokenizer


def pretrained_teacher(folder: Path, tensors: Mapping[str, Tensor]) -> Teacher:
    """The teacher that a pre-training has made.

    Args:
        folder: with ``config.json`` and the tokenizer.
        tensors: of :meth:`Pretraining.tensors`.
    """
    model = BertForMaskedLM(BertConfig.from_pretrained(folder))
    load_own_tensors(model, tensors)
    model.eval()
    return Teacher(model.bert, load_tokenizer(folder), model.cls)
