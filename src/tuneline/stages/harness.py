"""Run one lm-eval task on the tuned model."""

from tuneline.config.params import read_params
from tuneline.entry import run, stage_arguments
from tuneline.evaluation.harness import find_task, run_task, stay_offline_for
from tuneline.model.devices import take_devices
from tuneline.output import write_metrics


def main() -> None:
    args = stage_arguments(__doc__, "tasks_folder", "tuned", "out", names=("task",))
    params = read_params(args.params)
    if args.task in params.eval.harness_uncompared:
        print(f"{args.task}: its rows are compared with no training row; its score may be memory")
    take_devices(params.hardware.device, params.hardware.num_devices)
    stay_offline_for(args.task, args.tasks_folder, params.model)
    tasks = find_task(args.task, args.tasks_folder)
    # imported late: the Hugging Face libraries look at the network switch, bitsandbytes opens every GPU that it sees
    from tuneline.model.adapters import load_tuned
    from tuneline.model.tokenizers import load_tokenizer_from

    metrics = run_task(
        load_tuned(args.tuned, params.model, params.hardware, params.quantization),
        load_tokenizer_from(args.tuned),
        args.task,
        tasks,
        params.eval.harness_limit,
        params.hardware.eval_batch_size,
        params.seed,
    )
    write_metrics(args.out, metrics, "n_examples")


if __name__ == "__main__":
    run(main)
