package tubthumping.crac;

import java.util.List;

/**
 * What a copy is told by the engine.
 *
 * @param seed random, and of this copy alone
 * @param unixMillis when the restore was asked for
 * @param input what stood after {@code --}
 * @param variables the environment, {@code K=V}
 */
record Restored(String seed, long unixMillis, RestoreInput input, List<byte[]> variables) {
    /** From the verdict, behind its kind. */
    static Restored of(List<byte[]> verdict) {
        int arguments = Integer.parseInt(Strings.text(verdict.get(5)));
        int variables = 6 + arguments;
        return new Restored(
                Strings.text(verdict.get(3)),
                Long.parseLong(Strings.text(verdict.get(4))),
                new RestoreInput(verdict.subList(6, variables)),
                verdict.subList(variables, verdict.size()));
    }
}
