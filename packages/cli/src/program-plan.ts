import { type Command, Option } from 'commander'
import type { PlanBackupOptions } from './commands/plan-backup.js'
import { collect, dialectArgument, placeArguments } from './domain-arguments.js'
import { planBackupHelp, planHelp } from './help.js'
import type { Interruption } from './interruption.js'
import { operationCommands } from './program-operations.js'
import type { ProgramParts } from './program-parts.js'

/** `tidemark plan …`. @returns the group, whose commands the caller sets up as all others */
export function planCommands(
  program: Command,
  { common, ends, output }: ProgramParts,
  interruption: Interruption,
): Command {
  const plan = common(program.command('plan'))
    .description('Plan work on checkpoints. Changes nothing, but for --apply where a command has it.')
    .addHelpText('after', planHelp)
  const backup = common(plan.command('backup'))
    .description(
      'Which disks can be backed up incrementally since a checkpoint, from which bitmaps, and why not.',
    )
    .option(
      '--incremental <checkpoint>',
      'everything modified since this checkpoint (needed, but for --what-if)',
    )
    .option('--disk <target>', 'only this disk; repeatable', collect)
    .option('--domain <name>', "a domain in libvirt's folders; repeatable", collect)
    .option('--all', 'every domain there')
  dialectArgument(placeArguments(backup))
    .option(
      '--size-then <target=size>',
      "a disk's size at the checkpoint, where you know it; repeatable",
      collect,
    )
    .option(
      '--what-if <change>',
      'what it would be after delete=CHECKPOINT, detach=DISK, resize=DISK=SIZE, commit=DISK:TOP:BASE, ' +
        'pull=DISK[:BASE], copy=DISK:FILE, shallow-copy=DISK:FILE or snapshot[=DISK]; repeatable; without --incremental since each checkpoint',
      collect,
    )
    .option('--no-bodies', 'judge from metadata alone: no sizes, no check of bitmaps against each other')
    .option('--require-incremental', 'an error (1) unless every disk is incremental')
    .option('--details', 'with several domains: the whole plan of each below the table')
    .addOption(
      new Option('--format <format>', 'print it ready for virsh, QMP or a shell').choices([
        'xml',
        'qmp',
        'sh',
      ]),
    )
    .option('--pull', 'with --format xml: a pull mode backup')
    .option(
      '--target-dir <dir>',
      "with --format xml or sh: where the backup's files go (default: beside each disk; sh: the current folder)",
    )
    .addHelpText('after', planBackupHelp)
    .action(
      ends(async (options: PlanBackupOptions) =>
        (await import('./commands/plan-backup.js')).planBackupCommand(options, output),
      ),
    )

  operationCommands(plan, { common, ends, output }, interruption)
  return plan
}
