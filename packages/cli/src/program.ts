import { type LockTable, readLockTable } from '@tidemark/qcow2/node'
import { Command, CommanderError, Option } from 'commander'
import {
  type BitmapEditOptions,
  type BitmapStep,
  type EditOpenOptions,
  parseAddGranularity,
} from './bitmap/options.js'
import type { DumpOptions } from './commands/dump.js'
import type { InfoOptions } from './commands/info.js'
import type { MapOptions } from './commands/map.js'
import { collect } from './domain-arguments.js'
import { UsageError } from './errors.js'
import { exitStatus } from './exit-status.js'
import { bitmapHelp, dumpHelp, generalHelp, infoHelp, mapHelp, recoverHelp } from './help.js'
import type { Interruption } from './interruption.js'
import type { Output } from './output.js'
import { checkpointCommands } from './program-checkpoint.js'
import { planCommands } from './program-plan.js'
import { parseGranularity, parseSize } from './units.js'

declare const TIDEMARK_VERSION: string

/** Of `bitmap`, but for the actions. */
type BitmapArguments = Omit<BitmapEditOptions, 'steps'> & {
  readonly multi?: string
  readonly journal?: string
}

export interface Program {
  /** @returns the exit status */
  run(args: readonly string[]): Promise<number>
}

/**
 * The command line: options, help, and which command runs. Commands are imported when they run, and not before.
 */
export function buildProgram(output: Output, interruption: Interruption): Program {
  let status: number = exitStatus.ok
  const program = new Command('tidemark')
    .description(
      'qcow2 dirty bitmaps and libvirt checkpoints, offline: on images alone, without QEMU or libvirt.',
    )
    .version(TIDEMARK_VERSION, '-V, --version')
    .enablePositionalOptions()
    .addHelpText('after', generalHelp)
  common(program)
  const ends =
    <A extends unknown[]>(action: (...args: A) => Promise<number>) =>
    async (...args: A) => {
      status = await action(...args)
    }

  common(program.command('info'))
    .description("Show an image's metadata and its persistent bitmaps (a superset of qemu-img info).")
    .argument('<file>', 'qcow2 or raw image')
    .option('--backing-chain', 'the images below it too, top first')
    .option('--count', "count each bitmap's dirty granules (reads the bitmaps)")
    .addOption(noBacking())
    .addOption(allow())
    .addOption(forceShare())
    .addHelpText('after', infoHelp)
    .action(
      ends(async (file: string, options: InfoOptions) =>
        withLocks(async locks =>
          (await import('./commands/info.js')).info(file, { ...options, locks }, output),
        ),
      ),
    )

  common(program.command('map'))
    .description("List a disk's extents over its whole chain, or the dirty extents of its bitmaps.")
    .argument('<file>', 'qcow2 image; without --bitmap also a raw one')
    .addOption(bitmapOption())
    .addOption(
      new Option('--op <operation>', 'how to combine several, from left to right; else union').choices([
        'union',
        'intersection',
        'difference',
        'xor',
      ]),
    )
    .option(
      '--granularity <size>',
      'mark every granule of this size that the result touches',
      parseGranularity,
    )
    .option('--backing-chain', 'unite each bitmap with those of its name down the backing chain')
    .addOption(new Option('--format <format>', 'json, or one extent a line').choices(['json', 'ndjson']))
    .option('--count', 'only how much is dirty')
    .option('--dirty', 'leave clean extents out')
    .option('--with-data', 'tell zeros from data in dirty extents, as they are now')
    .option('--snapshot <name>', 'without --bitmap: the disk as in this internal snapshot (id or name)')
    .addOption(forceBitmaps())
    .addOption(noBacking())
    .addOption(allow())
    .addOption(probe())
    .addOption(forceShare())
    .addHelpText('after', mapHelp)
    .action(
      ends(async (file: string, options: MapOptions) =>
        withLocks(async locks =>
          (await import('./commands/map.js')).map(file, { ...options, locks }, output),
        ),
      ),
    )

  common(program.command('dump'))
    .description("Write a disk's guest data as raw: to a sparse file, or to stdout.")
    .argument('<file>', 'qcow2 or raw image')
    .option('-o, --out <out>', "a sparse file of the disk's size, or a device; - is stdout")
    .addOption(bitmapOption())
    .option('--offset <size>', 'from here on', value => parseSize(value, 'offset'))
    .option('--length <size>', 'so many bytes', value => parseSize(value, 'length'))
    .option('--snapshot <name>', 'the disk as in this internal snapshot (id or name)')
    .option('--no-sync', 'do not wait until OUT is on the disk: it may be lost with the power')
    .option('--passphrase-file <file>', 'what opens encrypted images (LUKS); - is stdin')
    .option('--map-source <old=new>', 'where backing files are now that were copied; repeatable', collect)
    .addOption(forceBitmaps())
    .addOption(noBacking())
    .addOption(allow())
    .addOption(probe())
    .addOption(forceShare())
    .addHelpText('after', dumpHelp)
    .action(
      ends(async (file: string, options: DumpOptions) =>
        withLocks(async locks =>
          (await import('./commands/dump.js')).dump(file, { ...options, locks }, output),
        ),
      ),
    )

  const steps: BitmapStep[] = []
  common(bitmapActions(program.command('bitmap'), steps))
    .description(
      "Change an image's bitmaps: all the actions in the order given, or none (as qemu-img bitmap).",
    )
    .usage('[options] <file> <name>\n       tidemark bitmap [options] --multi <plan>')
    .argument('[file]', 'qcow2 image')
    .argument('[name]', 'the bitmap that all of it is done to')
    .option(
      '-g, --granularity <size>',
      'of --add; else the cluster size, from 4k to 64k',
      parseAddGranularity,
    )
    .option('-b <file>', 'merge from this image')
    .option('-F <format>', 'the format of -b FILE: qcow2')
    .option('-f <format>', 'the format of FILE: qcow2')
    .addOption(new Option('--object <definition>').hideHelp())
    .addOption(new Option('--image-opts').hideHelp())
    .option('--multi <plan>', 'several images, all of them or none, as this JSON file says; - is stdin')
    .option(
      '--journal <file>',
      'with --multi: where what is under way is noted (default: beside the first image; not in /dev)',
    )
    .option('--dry-run', 'print what would be written, and write nothing')
    .addOption(unsafeNoLock())
    .addOption(planShare())
    .addHelpText('after', bitmapHelp)
    .action(
      ends(async (file: string | undefined, name: string | undefined, options: BitmapArguments) => {
        const { multi, journal, ...rest } = options
        if (multi !== undefined) {
          const { bitmapSeveral } = await import('./commands/bitmap-several.js')
          const names = [file, name].filter(each => each !== undefined)
          return bitmapSeveral(names, { ...options, multi, steps }, interruption, output)
        }
        if (journal !== undefined) throw new UsageError('--journal is for --multi')
        for (const [argument, value] of Object.entries({ file, name })) {
          if (value === undefined)
            throw new UsageError(`missing required argument '${argument}' (see --help)`)
        }
        const { bitmap } = await import('./commands/bitmap.js')
        return bitmap(file!, name!, { ...rest, steps }, interruption, output)
      }),
    )

  common(program.command('recover'))
    .description(
      'End an edit of several images that was cut off: all of them get their new bitmaps, or none.',
    )
    .argument('<journal>', 'what bitmap --multi left behind')
    .option('--dry-run', 'tell what would be done, and write nothing')
    .addOption(unsafeNoLock())
    .addOption(planShare())
    .addHelpText('after', recoverHelp)
    .action(
      ends(async (file: string, options: EditOpenOptions) =>
        (await import('./commands/recover.js')).recover(file, options, interruption, output),
      ),
    )

  const plan = planCommands(program, { common, ends, output }, interruption)
  const checkpoint = checkpointCommands(program, { common, ends, output })

  for (const command of [program, ...program.commands, ...plan.commands, ...checkpoint.commands]) {
    const writeOut = (text: string) => output.stdout.write(text)
    command.exitOverride().configureOutput({ writeOut, writeErr: () => {} })
  }
  return {
    async run(args) {
      try {
        await program.parseAsync(args, { from: 'user' })
      } catch (error) {
        if (!(error instanceof CommanderError)) throw error
        if (error.exitCode === 0) return exitStatus.ok
        throw new UsageError(usageMessage(error, args))
      }
      return status
    },
  }
}

/** One option each, collected in the order of the command line: commander would keep the last value of each. */
function bitmapActions(command: Command, steps: BitmapStep[]): Command {
  const actions = {
    add: 'a new bitmap, clear, that records',
    remove: 'take it away',
    clear: 'let it mark nothing',
    enable: 'let it record when a VM runs',
    disable: 'let it keep what it has, and record no more',
  } as const
  for (const [action, text] of Object.entries(actions)) {
    command.option(`--${action}`, text)
    command.on(`option:${action}`, () => steps.push({ action: action as keyof typeof actions }))
  }
  command.option('--merge <source>', 'add what this bitmap marks; repeatable')
  command.on('option:merge', (source: string) => steps.push({ action: 'merge', source }))
  command.option('--rename <new>', 'give it another name; what follows finds it by that one alone')
  return command.on('option:rename', (to: string) => steps.push({ action: 'rename', to }))
}

/** The kernel takes some 10 ms over the lock table: as long as Node over a command's code, so both at once. */
function withLocks(run: (locks: Promise<LockTable>) => Promise<number>): Promise<number> {
  return run(readLockTable())
}

function usageMessage(error: CommanderError, args: readonly string[]): string {
  // Commander shows the help of a command without a subcommand as an error.
  if (error.code === 'commander.help') {
    if (args.includes('checkpoint')) {
      return 'checkpoint what? There are: list, show, reconcile, redefine (see tidemark checkpoint --help)'
    }
    return args.includes('plan')
      ? 'plan what? There are: plan backup, delete, commit, pull, copy, snapshot (see tidemark plan --help)'
      : 'which command? There are: info, map, dump, plan, bitmap, recover, checkpoint (see tidemark --help)'
  }
  const [what = '', ...hints] = error.message.replace(/^error: /, '').split('\n')
  const hint = hints.join(' ').replace(/^\(Did you mean (.*)\?\)$/, "; did you mean '$1'?")
  return `${what}${hint} (see --help)`
}

function common(command: Command): Command {
  return command
    .addOption(
      new Option('--output <format>', 'for people or for programs')
        .choices(['human', 'json'])
        .default('human'),
    )
    .option('--no-progress', 'no progress bar, on a terminal either')
}

function forceShare(): Option {
  return new Option('-U, --force-share', 'read an image that a running QEMU holds; what it shows may be torn')
}

function planShare(): Option {
  return new Option('-U, --force-share', 'with --dry-run: plan although a running QEMU holds the image')
}

function unsafeNoLock(): Option {
  return new Option('--unsafe-no-lock', 'go on where no lock can be had: nothing may start to use the image')
}

function noBacking(): Option {
  return new Option('--no-backing', 'open nothing but FILE: an image from a stranger may name any file')
}

function allow(): Option {
  const text = 'open backing and data files below this folder only; repeatable'
  return new Option('--allow <dir>', text).argParser(collect)
}

function probe(): Option {
  return new Option(
    '--probe',
    "find a backing file's format by looking, where the image above does not say it",
  )
}

function bitmapOption(): Option {
  return new Option('--bitmap <name>', 'bitmap of FILE, or NAME@OTHERFILE; repeatable').argParser(collect)
}

function forceBitmaps(): Option {
  return new Option('--force', 'read in-use and stale bitmaps too; what cannot be read counts as dirty')
}
