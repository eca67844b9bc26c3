package tubthumping.crac;

/**
 * Where descriptors were opened, for the exceptions that name them: with {@code
 * -Djdk.crac.collect-fd-stacktraces=true} only, since it costs an exception for each.
 */
final class Openings {
    static final String PROPERTY = "jdk.crac.collect-fd-stacktraces";

    private static final WeakIdentityMap<Object, Exception> OPENED = new WeakIdentityMap<>();

    private Openings() {}

    static boolean areCollected() {
        return Boolean.getBoolean(PROPERTY);
    }

    static void opened(Object owner) {
        String by = Thread.currentThread().getName();
        OPENED.put(
                owner,
                new Exception(
                        "This file descriptor was created by "
                                + by
                                + " at epoch:"
                                + System.currentTimeMillis()
                                + " here"));
    }

    /** Where a descriptor was opened; {@code null} where that is not known. */
    static Exception of(int number) {
        Exception latest = null;
        for (Object owner : OPENED.keys()) {
            if (Owners.numberOf(owner) == number) {
                latest = OPENED.get(owner);
            }
        }
        return latest;
    }
}
