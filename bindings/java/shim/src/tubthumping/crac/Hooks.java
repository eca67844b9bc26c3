package tubthumping.crac;

/**
 * What methods of the JDK call at their start. The agent has put the calls in ({@code hooks.rs}).
 *
 * <p>Invariant: nothing is thrown into the JDK, and nothing here draws random numbers.
 */
public final class Hooks {
    private Hooks() {}

    /**
     * A generator is being made.
     *
     * @param generator which knows nothing yet
     */
    public static void generatorMade(Object generator) {
        try {
            SecureGenerators.made(generator);
        } catch (Throwable e) {
            // The application is not to blame, and can go on.
        }
    }

    /**
     * A generator is about to be given a seed.
     *
     * @param generator as it is before that
     */
    public static void generatorSeeded(Object generator) {
        try {
            SecureGenerators.seeded(generator);
        } catch (Throwable e) {
            // As above. It counts as one that has seeded itself then.
        }
    }

    /**
     * A descriptor has been opened, or is about to be.
     *
     * @param owner the descriptor, or what has it
     */
    public static void descriptorOpened(Object owner) {
        try {
            Openings.opened(owner);
        } catch (Throwable e) {
            // Nobody will be told where this one came from.
        }
    }
}
