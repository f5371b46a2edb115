"""The numbers of the rules, and why they are these; docs/explanations/rules.md has the trials."""

from typing import NamedTuple


class Threshold(NamedTuple):
    """A number of a rule, and the reason for it."""

    value: float
    reason: str


THRESHOLDS: dict[str, Threshold] = {
    "window_steps": Threshold(
        10,
        "Zero-initialised heads and branches need one or two updates to pass a gradient on, and a "
        "momentum of 0.9 lasts 1 / (1 - 0.9) = 10.",
    ),
    "window_records": Threshold(
        3, "Two can be alike by chance. Where every 10th step is recorded, three are 20 steps."
    ),
    "short_records": Threshold(
        2,
        "Where hardly two windows of steps are planned: at the default schedule 20 steps have no "
        "more of them.",
    ),
    "single_records": Threshold(
        10,
        "Of batches of one sample, in windows ten times as long: all units of a narrow ReLU layer "
        "may be inactive for a sample, and for the next three as well.",
    ),
    "window_share": Threshold(
        0.8,
        "Of the records of a window over depth: a slope near its limit crosses it to and fro, by "
        "the noise of batches.",
    ),
    "depth_window_steps": Threshold(
        30,
        "Adam moves all layers alike, by about 0.003 of their weights a step: it mends a mild "
        "slope over depth within 30 steps, or not at all. For the square of `depth_ratio`, which "
        "nothing mends, `window_steps` is enough.",
    ),
    "depth_layers": Threshold(
        5, "Two layers at each end, and the output layer: fewer have no trend over depth."
    ),
    "depth_ratio": Threshold(
        1e-4,
        "With plain gradient descent the layers at one end move 10,000 times less than those at "
        "the other: no training is so long. With Adam, gradients of 0.001 at the output come near "
        "its epsilon of 1e-7. Networks that learned stayed above 2.5e-4 or mended; those that "
        "failed were below 4e-5.",
    ),
    "depth_ratio_flat": Threshold(
        1e-2,
        "The same where the loss does not fall: the slope need not explain more than that. ReLU "
        "with Xavier's weights has it behind 15 layers.",
    ),
    "depth_factor": Threshold(
        0.35,
        "Per layer, where the loss does not fall: sigmoids have 0.25 or less, ReLU with Xavier's "
        "weights 0.71. So few layers as five sigmoids are found.",
    ),
    "prediction_factor": Threshold(
        10,
        "Between the signals of the first record and those predicted from the weights: batches, "
        "and gradients that are alike at all positions, make up to 6 in models that are as they "
        "should be.",
    ),
    "prediction_inputs": Threshold(
        3, "The RMS of inputs, for which the prediction assumes 1: less moves no activation far."
    ),
    "prediction_errors": Threshold(
        2,
        "Standard deviations of a signal by the draw of the weights: chance goes further in one of "
        "20 cases.",
    ),
    "prediction_share": Threshold(
        0.5, "Of a slope's logarithm: what makes more than half of it is named as its cause."
    ),
    "prediction_dead": Threshold(
        0.5,
        "Of a layer's units, without a gradient: of ReLUs half are inactive for one sample, and "
        "fewer for a batch.",
    ),
    "depth_mending": Threshold(
        10, "A slope that has become ten times less steep within its window is about to be gone."
    ),
    "dead_share": Threshold(
        0.9,
        "Of a layer's ReLUs about half are inactive for one sample and hardly any for a whole "
        "batch. Narrow layers learn with 0.8 of theirs dead for good.",
    ),
    "weight_growth": Threshold(
        10,
        "What is left of the initial weights is a tenth. Working learning rates change weights by "
        "0.001 to 0.01 a step, which is at most a doubling in 100 steps.",
    ),
    "update_small": Threshold(
        2.0**-24, "Half the resolution of float32: a weight is rounded to what it was."
    ),
    "update_slow": Threshold(
        1e-4, "Where the loss does not fall: at this pace weights change in 10,000 steps."
    ),
    "update_adaptive": Threshold(
        1e-5,
        "The same of adaptive optimizers at a usual rate or more: a choice. Gradients of random "
        "signs alone make the steps of Adam 0.23 as large (Kingma & Ba, 2015, beta_1 = 0.9).",
    ),
    "update_plain": Threshold(
        0.0004, "The same of plain gradient descent: healthy trainings had 0.0005, and learned."
    ),
    "update_usual": Threshold(
        1e-3,
        "Of the weights, an update: most trainings that learn are near it, or above; it is the "
        "rule of thumb of Stanford's course CS231n, too.",
    ),
    "update_near": Threshold(
        3,
        "Times smaller than `update_usual`, an update is still a usual one: a choice, half of a "
        "power of ten.",
    ),
    "update_wild": Threshold(
        0.1, "Where the loss does not fall: weights are replaced in ten steps, for good."
    ),
    "rate_fallen": Threshold(
        0.1, "Of its greatest value: what fell further is not the rate that was chosen."
    ),
    "rate_raised": Threshold(
        30,
        "Times a usual learning rate, for advice: a choice. Gradients that need more are to be "
        "mended themselves.",
    ),
    "clip_tight": Threshold(
        0.1, "Where the loss does not fall: with plain gradient descent, steps ten times too small."
    ),
    "clip_share": Threshold(
        0.9,
        "Of the records: a choice between always and spikes alone, which are what clipping is for.",
    ),
    "noise_ratio": Threshold(
        0.1,
        "Of the squared mean of 16 gradients to their variance: noise alone has 1/16, and a mean "
        "as large as the noise of one batch has 1.",
    ),
    "first_steps": Threshold(
        100,
        "Later on, small updates may be those of a training that has converged, and weights may "
        "have grown for good.",
    ),
    "ordinary": Threshold(
        1e6,
        "Nothing that is made of numbers below it by a few products overflows at 3e38: that is "
        "left to numbers without a value.",
    ),
    "norm_growth": Threshold(
        1e3, "Gradients grow by 10 to 100 when a healthy network leaves its first plateau."
    ),
    "loss_halved": Threshold(
        0.5, "More than is won by fitting the output's bias to targets that are nearly balanced."
    ),
    "loss_falling": Threshold(
        0.1, "From one window to the next: more than what differs between batches."
    ),
    "loss_risen": Threshold(1, "Doubled: the noise of batches is less."),
    "rising_records": Threshold(
        10,
        "At twice the first losses: by chance ten records in a row are so once in 1,000 times, "
        "even if every second one is.",
    ),
    "loss_climbed": Threshold(
        1.5,
        "Of the first losses, and of the best constant's, the mean of a third of a training: "
        "batches do not make so much of a mean of so many.",
    ),
    "loss_fell": Threshold(
        0.02,
        "Between the last third of a training so far and the third before: what learns, if slowly, "
        "loses more.",
    ),
    "fell_errors": Threshold(
        2, "Standard errors of what was lost: in one of 40 cases chance hides a larger fall."
    ),
    "first_left": Threshold(
        0.9,
        "Of the first loss, where the best constant's is not known: a choice. What learns comes "
        "below it.",
    ),
    "loss_grown": Threshold(
        100, "No noise of batches: losses of one batch differ from each other by a factor of 10."
    ),
    "loss_runaway": Threshold(
        4,
        "Times the first loss, below 0: a choice. It is the fall that gets faster by which it is "
        "judged.",
    ),
    "loss_still": Threshold(
        1e-6, "Ten times the resolution of float32: even one sample more or less makes more."
    ),
    "patience_steps": Threshold(
        100,
        "Healthy networks may guess for some tens of steps before they find something, as with "
        "small learning rates; earlier, one of four that learn would be accused.",
    ),
    "patience_at_end": Threshold(
        50, "The same at the end of a short training: later there is nothing more to be seen."
    ),
    "verdict_steps": Threshold(
        200,
        "A training without any cause to be found may well be a slow starter, as with rare "
        "classes: the verdict can wait. So can that on exclusive classes under binary "
        "cross-entropy: networks learn with it, and begin slowly.",
    ),
    "plateau_steps": Threshold(
        1000,
        "The verdict waits for half of the planned steps, and for this at most: networks of 5 "
        "units a layer on two rings guessed for up to 800 steps, and learned.",
    ),
    "guess_margin": Threshold(
        0.05,
        "Of the loss of the best constant: a training that is no better than that has learned at "
        "most the frequencies of the classes, or the mean.",
    ),
    "heart_margin": Threshold(
        0.025,
        "Of the loss of the best constant: in 300 steps random labels were learned by heart to "
        "2 %; a weak relation under much noise gave 5 %.",
    ),
    "guess_far": Threshold(
        3,
        "Of the loss of the best constant: fitting the output's bias alone comes below it. A start "
        "that is too large is mended by then, unless inputs or targets keep it so.",
    ),
    "guess_thirds": Threshold(
        6,
        "So many thirds of the training so far a loss would need at its pace to come down to that "
        "of the best constant. Healthy trainings far above it needed 2 to 5.",
    ),
    "guess_error": Threshold(
        0.01, "The best constant itself is known from the batches so far only."
    ),
    "guess_errors": Threshold(
        3, "Standard errors of the mean loss: by chance it is further off in one of 700 cases."
    ),
    "guess_near": Threshold(
        0.15,
        "Of the loss of the best constant, three times `guess_margin`: a choice. Nearer to it, a "
        "fall from one window to the next may be chance, as of small batches.",
    ),
    "output_still": Threshold(
        1e-6, "Relative to size and range of the output: rounding errors of float32."
    ),
    "average_left": Threshold(
        0.5, "Of what a moving average began with: at a momentum of 0.99, after 69 batches."
    ),
    "average_begin": Threshold(
        0.9, "The same where numbers may be near those: at a momentum of 0.999, after 105 batches."
    ),
    "planned_share": Threshold(
        0.5, "Of the planned updates: the last record may be some of them before the end."
    ),
    "halfway": Threshold(
        0.5,
        "Of the planned steps: a choice. What comes by itself mostly has by then, and there is "
        "time left to change something.",
    ),
    "loss_gone": Threshold(
        0.05, "Of the first loss: all is learned, and gradients may well be exactly zero."
    ),
    "input_size": Threshold(
        10,
        "With inputs of 10 instead of 1, weights need a learning rate 100 times smaller: the "
        "curvature of the loss grows with their square (LeCun et al., 1998).",
    ),
    "input_small": Threshold(
        0.01,
        "Standard deviation: with plain gradient descent the first layer learns 10,000 times more "
        "slowly than with 1, by its square.",
    ),
    "input_offset": Threshold(
        3, "Standard deviations: beyond it nearly all inputs have one sign, and units one side."
    ),
    "input_size_extreme": Threshold(
        1e3, "Pixels, and most tables as they are, are smaller, and are learned if slowly."
    ),
    "input_offset_extreme": Threshold(
        30, "Standard deviations: temperatures in kelvin, 290 ± 10, are just below it."
    ),
    "word_numbers": Threshold(
        50, "The greatest of whole inputs: most counts and grades are smaller, vocabularies larger."
    ),
    "input_scales": Threshold(
        1e3, "Between features: the best learning rates of their weights differ by a million."
    ),
    "pixels_least": Threshold(
        100,
        "The greatest of numbers up to 255: a choice between percentages, which end there, and "
        "pixels of 8 bits.",
    ),
    "picture_size": Threshold(
        16,
        "Numbers of a flat output, to be a picture: a choice. The smallest ones in use have 8 × 8.",
    ),
    "target_size": Threshold(
        10, "Adam at its usual 0.001 moves the output's bias by 10 in 10,000 steps."
    ),
    "target_pace": Threshold(
        1e3,
        "Learning rates: as far a step takes an output with an adaptive optimizer, at most. A "
        "training that learned targets of 140 went 350 a step.",
    ),
    "range_slack": Threshold(0.01, "Of the range of an output: bfloat16 has steps of 0.008 at 1."),
    "target_beyond": Threshold(
        0.5,
        "Standard deviations of the targets: so far out of reach, the farthest costs a quarter of "
        "their variance, and all others less.",
    ),
    "target_far": Threshold(
        10,
        "Times the range of an output, under a loss of one's own: a choice between what a loss may "
        "scale itself, as sizes of boxes, and pixels up to 255.",
    ),
    "ones_per_row": Threshold(
        1.05,
        "Ones in a row of targets, on average: a choice. Where one row in twenty has a second one, "
        "that is hardly a mistake.",
    ),
    "label_entropy": Threshold(
        0.1, "In nats: one label in fifty is of another class than all the others."
    ),
    "few_classes": Threshold(
        20,
        "Classes by number: a choice between the ten digits, and counts or ages, which go further.",
    ),
    "many_classes": Threshold(
        1000,
        "The greatest label: as many classes as ImageNet's challenge has (Russakovsky et al., "
        "2015). Beyond it integers are taken for counts, a choice.",
    ),
    "nearly_all": Threshold(
        0.99,
        "Of rows or elements: a choice that lets a few be unlike the others, as rows without a "
        "class.",
    ),
    "rare_entropy": Threshold(
        0.35, "In nats, for a note: one label in nine is of another class than all the others."
    ),
    "entropy_weighted": Threshold(
        0.5, "Of the labels' entropy, that with weights: weights that help rare classes raise it."
    ),
    "weight_large": Threshold(
        10, "Root mean square: of a kernel for a single feature it is 1.4 at most."
    ),
    "output_large": Threshold(
        1e3, "Times the greatest input or target, or 1: 20 layers that gain a factor of 1.4 each."
    ),
    "epsilon_large": Threshold(
        1, "Beside a variance of 1 it divides by 1.4: as much as Glorot's weights take at a ReLU."
    ),
    "saturating_norm": Threshold(
        10, "Of a unit's weights: at a sum of 10 the slope of a sigmoid is 5e-5."
    ),
    "value_range": Threshold(
        2, "Times the greatest input: a batch of pictures has pixels that are nearly white."
    ),
    "percentage_most": Threshold(
        1e4, "Percent: a hundred times the target. An output of 0 is off by 100 percent."
    ),
    "sorted_records": Threshold(
        10, "Batches of one class each: by chance, ten of them hardly ever are, even of two."
    ),
    "broadcast_spread": Threshold(
        0.3, "Of the targets' standard deviation: outputs explain less than a tenth of variance."
    ),
    "sorted_entropy": Threshold(
        0.5,
        "In nats: no class has more than 0.8 of the samples, so that even batches of two are of "
        "one class less often than `window_share`. Where one class is rare, most batches lack it.",
    ),
    "swing": Threshold(
        3, "Of the loss of the best constant: so far above it a swing goes, from below it."
    ),
    "swings": Threshold(
        4, "In the last two thirds of the training: a bad batch now and then makes one or two."
    ),
    "swing_mean": Threshold(
        1.5,
        "Of the loss of the best constant, the mean of a loss that swings: the noise of batches "
        "alone has the constant's loss on average, also where batches are small.",
    ),
    "swing_update": Threshold(
        0.01,
        "Of the weights, ten times what is usual: with less, batches differ and not the model.",
    ),
    "swing_fall": Threshold(
        0.2, "Of the mean loss, from the middle third of the training to the last: it is noisy."
    ),
    "sigmoid_layers": Threshold(
        2, "Two hidden sigmoids lose a factor of 16 or more; with one most networks learn."
    ),
    "start_ratio": Threshold(
        1e-4,
        "Of variances over all layers, a hundredth in amplitude. Twelve ReLU layers with Glorot's "
        "weights lose less and learn.",
    ),
    "penalty_most": Threshold(
        0.9, "Ten times the data's loss: of an update hardly anything is the data's."
    ),
    "penalty_said": Threshold(
        0.1, "Of the loss, for a hint: where nothing else is found, a tenth may be what matters."
    ),
    "penalty_share": Threshold(0.5, "Of the loss: then the penalties are more than the data's."),
    "decay_share": Threshold(
        0.01, "Of the weights, in a step: without a gradient half of them is gone in 70 steps."
    ),
    "constraint_norm": Threshold(
        0.1,
        "Of a unit's weights, a tenth of a signal in each layer. Keras's default is 2, and 3 to 4 "
        "are typical (Srivastava et al., 2014).",
    ),
    "frozen_share": Threshold(
        0.75,
        "Of the layers with weights: a choice between half, as where upper layers are tuned, and a "
        "whole base, of which nearly all are.",
    ),
    "dropout_rate": Threshold(
        0.8,
        "Of five units one is left. Usual are 0.2 for inputs and 0.5 for hidden units (Srivastava "
        "et al., 2014).",
    ),
    "dropout_kept": Threshold(
        0.1, "Of a signal through all dropouts in a row: four of 0.44 each, or two of 0.7."
    ),
    "memory_steps": Threshold(
        30,
        "Steps of a sequence: so far back the gradient of a recurrent layer is next to nothing at "
        "first, and only longer trainings than most build it up.",
    ),
    "few_units": Threshold(
        8, "XOR takes 2 units in theory and 4 to 8 in practice, rings 4 to 8, spirals 16 or more."
    ),
    "used_parts": Threshold(
        8, "Of an axis, that are compared: of fewer places a model may well need one or two."
    ),
    "used_share": Threshold(
        0.25,
        "Of these parts. What is cut off at a border leaves more.",
    ),
    "sight_share": Threshold(
        0.75, "Of these parts, for a hint: what is left out may be what the target depends on."
    ),
    "average_followed": Threshold(
        0.1, "Of the way of the weights. Keras's own 0.99 over 100 steps is 0.37."
    ),
    "spike_factor": Threshold(
        10,
        "Times the running median. Noise of batches makes a norm two or three times as large; ten "
        "times, Adam's squares take hundreds of steps to forget.",
    ),
    "spike_window": Threshold(64, "Steps of the median: within so many a training hardly changes."),
    "adaptive_rate": Threshold(
        0.1,
        "A step of 0.1 changes most weights by all that they began with; 0.001 is the default of "
        "Adam (Kingma & Ba, 2015).",
    ),
    "adaptive_rate_sure": Threshold(
        1,
        "The first step is larger than nearly all weights: Glorot's between layers of 64 units are "
        "below 0.22.",
    ),
}
