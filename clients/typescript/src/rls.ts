// Binds an actor to a transaction of Prisma, for row-level security that `pdp rls generate` has made.
//
//   const courses = await transaction(prisma, { user, session, organization }, (tx) => tx.course.findMany());
//
// The actor must come from a session token that was verified: the database believes what it is given.

/** The user of a verified session token (`sub`), its session (`sid`), and the active organization, if there is one. */
export interface Actor {
  readonly user: string;
  readonly session: string;
  readonly organization?: string | null;
}

/** What a transaction of Prisma Client offers: only as much as is needed here. */
export interface Transaction {
  $executeRaw(query: TemplateStringsArray, ...values: unknown[]): PromiseLike<number>;
}

/** A Prisma Client. */
export interface Client<T extends Transaction, Options> {
  $transaction<R>(work: (tx: T) => Promise<R>, options?: Options): Promise<R>;
}

/**
 * An interactive transaction with an actor. Afterwards its connection has none.
 *
 * All queries of `work` must be those of `tx`. Queries of the client itself run on another connection, which has no
 * actor and so no rows. If `work` throws, all of it is rolled back.
 *
 * Throws TypeError if the actor has no user or no session: the token was not one of a session.
 */
export async function transaction<T extends Transaction, Options, R>(
  prisma: Client<T, Options>,
  { user, session, organization = null }: Actor,
  work: (tx: T) => Promise<R>,
  options?: Options,
): Promise<R> {
  for (const [name, value] of Object.entries({ user, session })) {
    if (typeof value !== "string" || value === "") throw new TypeError(`${name} must be a text that is not empty`);
  }
  const actor = JSON.stringify({ user, organization, session });
  return prisma.$transaction(async (tx) => {
    await tx.$executeRaw`SELECT set_config('pdp.actor', ${actor}, true)`;
    return work(tx);
  }, options);
}
