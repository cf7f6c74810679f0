/** The commands that mend what is found. Each is one line for `sh -e`, with every name quoted. */
import type { DomainFacts } from '../facts.js'
import { shellCommand, virshCommand } from '../shell-word.js'
import type { Way, WayNeeds } from './findings.js'
import { filesOf, type PlacedBitmap } from './places.js'

export interface WayOptions {
  /**
   * The arguments that tell `tidemark` where the domain is: `['--domain', 'web']`. Default: that, with the domain's
   * name.
   */
  readonly domainArguments?: readonly string[] | undefined
}

/** Makes ways for one domain. A way is undefined where some name cannot be written in a command line. */
export class Ways {
  readonly #domain: string
  /** The domain's name as part of a file's. */
  readonly #label: string
  readonly #arguments: readonly string[]

  constructor({ name }: DomainFacts, { domainArguments }: WayOptions) {
    this.#domain = name
    this.#label = name.replace(/[^\w.-]/g, '_')
    this.#arguments = domainArguments ?? ['--domain', name]
  }

  /** The bitmap goes from every image that has it. */
  drop(places: readonly PlacedBitmap[], title: string): Way | undefined {
    return way('drop', title, 'off', removals(places))
  }

  /** A checkpoint is made of the bitmap. */
  adopt(bitmap: string): Way | undefined {
    const title = 'make a checkpoint of it again: backups can start from it'
    return way('adopt', title, 'any', this.#redefine('adopt', bitmap, ['--bitmap', bitmap]))
  }

  /** The checkpoint goes on without these disks. */
  leaveOut(checkpoint: string, disks: readonly string[], broken: readonly PlacedBitmap[]): Way | undefined {
    const title = `let the checkpoint go on without ${disks.join(', ')}: the next backup since it copies ${disks.length > 1 ? 'them' : 'it'} whole`
    const arguments_ = ['--checkpoint', checkpoint, '--as-found']
    const commands = [...removals(broken), ...this.#redefine('leave-out', checkpoint, arguments_)]
    return way('leave-out', title, broken.length > 0 ? 'off' : 'any', commands)
  }

  /** Metadata and bitmaps of the checkpoint go. */
  forget(checkpoint: string, places: readonly PlacedBitmap[]): Way | undefined {
    const commands = [this.#virsh('checkpoint-delete', [checkpoint], '--metadata'), ...removals(places)]
    const title = 'give the checkpoint up: the next backup must start from another one, or copy all'
    return way('forget', title, places.length > 0 ? 'off' : 'any', commands)
  }

  /** One line of parents. */
  line(): Way | undefined {
    const commands = this.#redefine('line', undefined, ['--line', '--no-bitmaps'])
    return way(
      'line',
      'put all checkpoints in one line, in the order that times and bitmaps tell',
      'any',
      commands,
    )
  }

  /** What libvirt does not load is written as it would. */
  redefine(checkpoint: string): Way | undefined {
    const commands = this.#redefine('redefine', checkpoint, ['--checkpoint', checkpoint, '--no-bitmaps'])
    return way('redefine', 'write its metadata anew', 'any', commands)
  }

  /** A file is moved out of libvirt's folder. */
  setAside(file: string): Way | undefined {
    const folder = `./set-aside-${this.#label}`
    const commands = [shellCommand('mkdir', '-p', '--', folder), shellCommand('mv', '--', file, `${folder}/`)]
    return way(
      'set-aside',
      'move the file out of the way (libvirt forgets it at its next start)',
      'any',
      commands,
    )
  }

  /** libvirt itself removes the bitmap from the images of a running domain, once it is told of a checkpoint. */
  deleteRunning(bitmap: string, disks: readonly string[]): Way | undefined {
    const file = `./delete-${this.#label}-${bitmap}.xml`
    const list = disks.map(disk => `<disk name="${attribute(disk)}" checkpoint="bitmap"/>`).join('')
    const xml = `<domaincheckpoint><name>${bitmap}</name><creationTime>1</creationTime><disks>${list}</disks></domaincheckpoint>`
    const commands = [
      shellCommand('printf', '%s\\n', xml, { raw: '>' }, file),
      this.#virsh('checkpoint-create', [file], '--redefine'),
      this.#virsh('checkpoint-delete', [bitmap]),
    ]
    return way('delete-running', 'let libvirt remove it while the domain runs', 'running', commands)
  }

  /** QEMU's own repair drops bitmaps that a foreign writer made worthless. */
  dropStale(filename: string, after: readonly (Way | undefined)[]): Way | undefined {
    const repair = shellCommand('qemu-img', 'check', '-q', '-r', 'leaks', path(filename))
    const next = after.find(each => each !== undefined)
    const title = `drop the image's bitmaps, which are worthless${next === undefined ? '' : `, and ${next.title}`}`
    return way('drop-stale', title, 'off', [repair, ...(next?.commands ?? [])])
  }

  #redefine(
    what: string,
    name: string | undefined,
    options: readonly string[],
  ): readonly (string | undefined)[] {
    const folder = `./${['redefine', this.#label, what, name].filter(each => each !== undefined).join('-')}`
    return [
      shellCommand(
        ...['tidemark', 'checkpoint', 'redefine', ...this.#arguments, ...options],
        ...['--force', '-o', folder, { raw: '>' }, `${folder}.sh`],
      ),
      shellCommand('sh', '-e', `${folder}.sh`),
    ]
  }

  #virsh(command: string, names: readonly string[], ...options: readonly string[]): string | undefined {
    return virshCommand(command, [this.#domain, ...names], options)
  }
}

function removals(places: readonly PlacedBitmap[]): readonly (string | undefined)[] {
  return filesOf(places).map(({ filename, bitmap }) =>
    bitmap.name.startsWith('-')
      ? shellCommand('tidemark', 'bitmap', '--remove', '--', path(filename), bitmap.name)
      : shellCommand('tidemark', 'bitmap', '--remove', path(filename), bitmap.name),
  )
}

/** A file name that cannot be taken for an option. */
function path(filename: string): string {
  return filename.startsWith('-') ? `./${filename}` : filename
}

function attribute(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('"', '&quot;')
}

function way(
  kind: Way['way'],
  title: string,
  needs: WayNeeds,
  commands: readonly (string | undefined)[],
): Way | undefined {
  const written = commands.filter(command => command !== undefined)
  if (written.length === 0 || written.length < commands.length) return undefined
  return { way: kind, title, needs, commands: written }
}
