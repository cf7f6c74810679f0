import { type Command, Option } from 'commander'
import type {
  CommitOptions,
  CopyOptions,
  OperationOptions,
  PullOptions,
  SnapshotOptions,
} from './commands/plan-operations.js'
import { collect, dialectArgument, domainArguments } from './domain-arguments.js'
import {
  planCommitHelp,
  planCopyHelp,
  planDeleteHelp,
  planPullHelp,
  planSnapshotHelp,
} from './help-operations.js'
import type { Interruption } from './interruption.js'
import type { ProgramParts } from './program-parts.js'

/** `tidemark plan delete`, `commit`, `pull`, `copy`, `snapshot`. */
export function operationCommands(
  plan: Command,
  { common, ends, output }: ProgramParts,
  interruption: Interruption,
): void {
  common(operation(plan.command('delete')))
    .description(
      'What happens to which bitmaps in which layer when a checkpoint is deleted; --apply does it.',
    )
    .argument('<checkpoint>', 'its name')
    .addHelpText('after', planDeleteHelp)
    .action(
      ends(async (checkpoint: string, options: OperationOptions) => {
        const { planDeleteCommand } = await import('./commands/plan-operations.js')
        return planDeleteCommand(checkpoint, options, interruption, output)
      }),
    )
  common(operation(plan.command('commit')))
    .description('What happens to the bitmaps when layers of a disk are committed into one below them.')
    .option('--disk <target>', 'the disk (needed)')
    .option('--top <layer>', 'the uppermost layer that goes: its number (0 is the top) or its file (needed)')
    .option('--base <layer>', 'the layer that they go into (needed)')
    .addHelpText('after', planCommitHelp)
    .action(
      ends(async (options: CommitOptions) =>
        (await import('./commands/plan-operations.js')).planCommitCommand(options, interruption, output),
      ),
    )
  common(operation(plan.command('pull')))
    .description("What happens to the bitmaps when layers below a disk's top are pulled up into it.")
    .option('--disk <target>', 'the disk (needed)')
    .option('--base <layer>', 'the layer that stays below the top: its number or its file; else none does')
    .addHelpText('after', planPullHelp)
    .action(
      ends(async (options: PullOptions) =>
        (await import('./commands/plan-operations.js')).planPullCommand(options, interruption, output),
      ),
    )
  common(operation(plan.command('copy')))
    .description('Which bitmaps a copy of a disk gets.')
    .option('--disk <target>', 'the disk (needed)')
    .option('--target <file>', 'the copy (needed)')
    .option('--shallow', "only the top layer: the copy keeps the disk's backing images")
    .addHelpText('after', planCopyHelp)
    .action(
      ends(async (options: CopyOptions) =>
        (await import('./commands/plan-operations.js')).planCopyCommand(options, interruption, output),
      ),
    )
  common(operation(plan.command('snapshot')))
    .description('Which bitmaps the overlays of an external snapshot get.')
    .option(
      '--disk <target=overlay>',
      'this disk, and the file of its overlay; repeatable; else every writable disk',
      collect,
    )
    .addHelpText('after', planSnapshotHelp)
    .action(
      ends(async (options: SnapshotOptions) =>
        (await import('./commands/plan-operations.js')).planSnapshotCommand(options, interruption, output),
      ),
    )
}

/** What they have in common. */
function operation(command: Command): Command {
  return dialectArgument(domainArguments(command))
    .addOption(
      new Option('--format <format>', 'print it as JSON, QMP or a shell script').choices([
        'json',
        'qmp',
        'sh',
      ]),
    )
    .option('--no-bodies', 'judge from metadata alone: no check whether bitmaps have lost writes')
    .option('--apply', 'change the bitmaps of all images, or of none; the domain must be off')
    .option('--dry-run', 'print what --apply would write, and write nothing')
    .option('--unsafe-no-lock', 'with --apply: go on where no lock can be had')
}
