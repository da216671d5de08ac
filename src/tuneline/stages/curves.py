"""Stage curves: the loss curve of a phase as CSV and picture, its last word as metrics."""

from tuneline.entry import run, stage_arguments
from tuneline.output import atomic_file, write_metrics, write_text
from tuneline.training.curves import curve, curve_csv, curve_metrics, draw_curve, read_log


def main() -> None:
    """Read the training log, write the three."""
    args = stage_arguments(__doc__, "log", "curve", "picture", "metrics", names=("phase",))
    log = read_log(args.log)
    points = curve(log["log_history"])
    write_text(args.curve, curve_csv(points))
    with atomic_file(args.picture) as temporary:
        draw_curve(points, temporary, f"Phase {args.phase}")
    write_metrics(args.metrics, curve_metrics(log), "n_steps", "train_loss_nats")


if __name__ == "__main__":
    run(main)
