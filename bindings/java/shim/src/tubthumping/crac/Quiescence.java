package tubthumping.crac;

import java.util.List;

/**
 * The JVM's own part in a checkpoint: made ready after the last before-hook, undone before the
 * first after-hook. Knowledge of the JDK's inside is one class each, called here in order.
 */
final class Quiescence {
    /** More than the compilations that a warm service has left take; less than a user minds. */
    private static final long COMPILERS_MS = 5_000;

    private Environment environment;
    private References references;
    private Heap heap;
    private List<String> allowedPaths = List.of();

    /** Makes ready: loads what will be needed, then closes what is unreachable, then shrinks. */
    void begin() throws ReflectiveOperationException, InterruptedException {
        // Everything that loads classes or opens files comes first. In a copy the first use of a
        // class would cost time, and its garbage would be in the image.
        environment = new Environment();
        references = new References();
        heap = new Heap();
        allowedPaths = ClassPath.allowedPaths();
        rehearse();
        references.drain();
        // Before the heap: what they still compile is garbage afterwards.
        Agent.awaitCompilers(COMPILERS_MS);
        heap.shrink();
        // Last, since all of the above leaves free memory behind in the native heap.
        Agent.trimNativeHeap();
    }

    /** Runs the way back with nothing to do, so that its classes are loaded and linked. */
    private void rehearse() throws ReflectiveOperationException {
        byte[] letter = new Strings().add("restored").add("").pack();
        environment.apply(Strings.unpackRaw(letter));
        new Management.RestoreTime(System.currentTimeMillis()).uptimeMillis();
    }

    List<String> allowedPaths() {
        return allowedPaths;
    }

    /** Undoes {@link #begin}, however far it came. */
    void end() {
        if (heap != null) {
            heap.restore();
        }
    }

    /** Adapts this copy to the place and time in which it gets up. */
    void restored(String seed, long unixMillis, List<byte[]> variables, Failures failures) {
        Management.RestoreTime.last = new Management.RestoreTime(unixMillis);
        try {
            environment.apply(variables);
        } catch (ReflectiveOperationException | RuntimeException e) {
            failures.add(e);
        }
    }
}
