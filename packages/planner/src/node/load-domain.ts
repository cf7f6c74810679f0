import { existsSync } from 'node:fs'
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { PlannerError } from '../errors.js'
import type { CheckpointFacts, DomainFacts } from '../facts.js'
import { didYouMean, listNames } from '../nearest.js'
import { checkpointReader } from '../xml/checkpoint-reader.js'
import { parseDomain } from '../xml/domain.js'
import { LoadError } from './errors.js'
import { asLoadError, readText } from './read-text.js'
import { locateVolumes, volumeFinder } from './volumes.js'

/** By name in libvirt's folders, or by the files themselves. */
export type DomainLocation =
  | {
      readonly domain: string
      /**
       * A root that holds `qemu/NAME.xml`, `qemu/checkpoint/NAME/` and `storage/POOL.xml`. Default: libvirt's system
       * folders, `/etc/libvirt` and `/var/lib/libvirt/qemu/checkpoint`.
       */
      readonly libvirtRoot?: string | undefined
    }
  | {
      readonly domainXml: string
      /** The folder of the checkpoints' XML files. */
      readonly checkpointDir: string
    }

/** A checkpoint's file that could not be used. */
export interface LoadProblem {
  readonly file: string
  readonly error: PlannerError
}

export interface LoadedDomain {
  readonly domain: DomainFacts
  /** In the order of their file names. */
  readonly checkpoints: readonly CheckpointFacts[]
  /** The file of each. */
  readonly files: ReadonlyMap<CheckpointFacts, string>
  /** Files that were left out; libvirt too goes on without them. */
  readonly problems: readonly LoadProblem[]
  /** The domain's file. */
  readonly domainXml: string
  readonly checkpointDir: string
}

/**
 * Reads a domain and its checkpoints' metadata. libvirt takes whatever lies in the checkpoints' folder, so every file
 * that is a checkpoint counts; of those that are none only `*.xml` is a problem. A domain that never had a checkpoint
 * has no such folder in libvirt's tree, which is no error; a folder named outright must be there.
 *
 * Disks that are volumes of a storage pool become the files that they are, where the pool's definition tells.
 *
 * @throws {LoadError} the domain's file or the named folder is missing or cannot be read; a name that is none
 * @throws {XmlError} the domain's XML cannot be used
 * @example
 * ```ts
 * const { domain, checkpoints, problems } = await loadDomain({ domain: 'web' })
 * ```
 */
export async function loadDomain(location: DomainLocation): Promise<LoadedDomain> {
  const { domainXml, checkpointDir, storageDir } =
    'domain' in location ? locate(location) : { ...location, storageDir: undefined }
  const text = await readText(domainXml).catch(async error => {
    throw 'domain' in location ? await domainMissing(location.domain, domainXml, error) : error
  })
  const find = storageDir === undefined ? async () => undefined : volumeFinder(storageDir)
  const domain = await locateVolumes(parseDomain(text), find)
  const files = await listFiles(checkpointDir).catch(error => {
    if ('domain' in location && error instanceof LoadError && error.code === 'file-missing') return []
    throw error
  })
  const readCheckpoint = checkpointReader()
  const places = new Map<DomainFacts, Promise<DomainFacts>>()
  const located = (then: DomainFacts) => {
    const place = places.get(then) ?? locateVolumes(then, find)
    places.set(then, place)
    return place
  }
  const checkpoints: CheckpointFacts[] = []
  const problems: LoadProblem[] = []
  const from = new Map<CheckpointFacts, string>()
  for (const [i, name] of files.entries()) {
    // Files are read on this thread: now and then others get their turn, a signal that ends it all among them.
    if (i % FILES_AT_A_TIME === FILES_AT_A_TIME - 1) await promisify(setImmediate)()
    const file = join(checkpointDir, name)
    try {
      const text = await readText(file)
      const read = readCheckpoint(text)
      const then = read.domain && (await located(read.domain))
      const tooLong = Buffer.byteLength(text) > LIBVIRT_MAX_CHECKPOINT_BYTES
      const checkpoint: CheckpointFacts = {
        ...{ ...read, domain: then },
        ...(tooLong && read.libvirtSkips === undefined ? { libvirtSkips: 'its file is above 1 MiB' } : {}),
      }
      checkpoints.push(checkpoint)
      from.set(checkpoint, file)
    } catch (error) {
      if (!(error instanceof PlannerError)) throw error
      if (name.endsWith('.xml')) problems.push({ file, error })
    }
  }
  return { domain, checkpoints, files: from, problems, domainXml, checkpointDir }
}

const FILES_AT_A_TIME = 100

/** libvirt reads no more of a checkpoint's file at load, and leaves out what is longer. */
const LIBVIRT_MAX_CHECKPOINT_BYTES = 1024 * 1024

/**
 * The domains whose XML is in libvirt's folder, sorted.
 *
 * @throws {LoadError} the folder is missing or cannot be read
 */
export async function listDomains(libvirtRoot?: string): Promise<readonly string[]> {
  const files = await listXml(domainFolder(libvirtRoot))
  return files.map(file => file.slice(0, -'.xml'.length))
}

function locate({
  domain,
  libvirtRoot,
}: {
  readonly domain: string
  readonly libvirtRoot?: string | undefined
}) {
  if (!/^[^/\0]+$/.test(domain) || domain === '.' || domain === '..') {
    throw new LoadError('bad-domain-name', `'${domain.replace(/\p{Cc}/gu, '?')}' cannot be a domain's name`, {
      domain,
    })
  }
  const metadata = libvirtRoot === undefined ? '/var/lib/libvirt/qemu' : join(libvirtRoot, 'qemu')
  return {
    domainXml: join(domainFolder(libvirtRoot), `${domain}.xml`),
    checkpointDir: join(metadata, 'checkpoint', domain),
    storageDir: join(libvirtRoot ?? '/etc/libvirt', 'storage'),
  }
}

function domainFolder(libvirtRoot: string | undefined): string {
  return libvirtRoot === undefined ? '/etc/libvirt/qemu' : join(libvirtRoot, 'qemu')
}

async function listXml(folder: string): Promise<string[]> {
  return (await listFiles(folder)).filter(name => name.endsWith('.xml'))
}

async function listFiles(folder: string): Promise<string[]> {
  try {
    return (await readdir(folder)).sort()
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOTDIR' && existsSync(folder)) {
      throw new LoadError('file-unreadable', `${folder} is not a folder`, { path: folder }, { cause: error })
    }
    throw asLoadError(folder, error)
  }
}

/** "No such file" says little: which domains there are says more. */
async function domainMissing(domain: string, path: string, error: unknown): Promise<unknown> {
  if (!(error instanceof LoadError) || error.code !== 'file-missing') return error
  const known = (await listXml(join(path, '..')).catch(() => [])).map(file => file.slice(0, -'.xml'.length))
  const message = `there is no domain '${domain}': ${path} does not exist${didYouMean(domain, known)} (domains there: ${listNames(known)})`
  return new LoadError('domain-missing', message, { path, domain, known }, { cause: error })
}
