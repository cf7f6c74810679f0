import type { Command } from 'commander'
import type { CheckpointListOptions } from './commands/checkpoint-list.js'
import type { CheckpointReconcileOptions } from './commands/checkpoint-reconcile.js'
import type { CheckpointRedefineOptions } from './commands/checkpoint-redefine.js'
import type { CheckpointShowOptions } from './commands/checkpoint-show.js'
import { collect, dialectArgument, domainArguments } from './domain-arguments.js'
import {
  checkpointHelp,
  checkpointListHelp,
  checkpointReconcileHelp,
  checkpointRedefineHelp,
  checkpointShowHelp,
} from './help-checkpoint.js'
import type { ProgramParts } from './program-parts.js'

/** `tidemark checkpoint …`. @returns the group, whose commands the caller sets up as all others */
export function checkpointCommands(program: Command, { common, ends, output }: ProgramParts): Command {
  const group = common(program.command('checkpoint'))
    .description("A domain's checkpoints: what there is, what is wrong with it, and what mends it.")
    .addHelpText('after', checkpointHelp)

  common(dialectArgument(domainArguments(group.command('list'))))
    .description('Checkpoints with their parents, times and disks, and whether each is usable now.')
    .option('--tree', 'draw the tree')
    .option('--bodies', 'read the bitmaps too: sizes, and whether older ones hold what newer ones do')
    .addHelpText('after', checkpointListHelp)
    .action(
      ends(async (options: CheckpointListOptions) =>
        (await import('./commands/checkpoint-list.js')).checkpointList(options, output),
      ),
    )

  common(dialectArgument(domainArguments(group.command('show'))))
    .description('One checkpoint: its record, its bitmaps in every layer, and what a backup would be.')
    .argument('<checkpoint>', 'its name')
    .option('--count', 'how much is dirty in each layer (reads the bitmaps)')
    .option('--no-bodies', 'judge from metadata alone')
    .addHelpText('after', checkpointShowHelp)
    .action(
      ends(async (checkpoint: string, options: CheckpointShowOptions) =>
        (await import('./commands/checkpoint-show.js')).checkpointShow(checkpoint, options, output),
      ),
    )

  common(dialectArgument(domainArguments(group.command('reconcile'))))
    .description('Hold metadata, bitmaps and the domain against each other, and say what mends each gap.')
    .option('--bodies', 'read the bitmaps too: does an older one lack what a newer one has?')
    .addHelpText('after', checkpointReconcileHelp)
    .action(
      ends(async (options: CheckpointReconcileOptions) =>
        (await import('./commands/checkpoint-reconcile.js')).checkpointReconcile(options, output),
      ),
    )

  common(dialectArgument(domainArguments(group.command('redefine'))))
    .description('Write checkpoints anew for virsh: from their metadata, or from bitmaps alone.')
    .option('-o, --out <dir>', 'the folder for the files; without it nothing is written')
    .option('--checkpoint <name>', 'of the checkpoints with metadata just this one; repeatable', collect)
    .option('--bitmap <name>', 'of the bitmaps without metadata just this one; repeatable', collect)
    .option('--no-bitmaps', 'make nothing of bitmaps without metadata')
    .option('--line', 'one line of parents, in the order found, whatever the metadata say')
    .option('--as-found', 'leave disks out whose bitmap is missing or cannot be used')
    .option('--force', 'overwrite files that are there')
    .addHelpText('after', checkpointRedefineHelp)
    .action(
      ends(async (options: CheckpointRedefineOptions) =>
        (await import('./commands/checkpoint-redefine.js')).checkpointRedefine(options, output),
      ),
    )
  return group
}
