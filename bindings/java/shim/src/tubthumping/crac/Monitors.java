package tubthumping.crac;

import java.util.concurrent.TimeUnit;
import java.util.function.BooleanSupplier;

/** Waiting that an interrupt does not end: what has begun cannot be left half done. */
final class Monitors {
    /** Longer than anything here lives, and far from an overflow. */
    static final long FOREVER_MS = TimeUnit.DAYS.toMillis(3650);

    private Monitors() {}

    /**
     * Waits on {@code monitor}, which the caller holds, until {@code done}, for at most so long.
     * An interrupt is kept for the caller to see.
     *
     * @return whether it is done
     */
    static boolean await(Object monitor, BooleanSupplier done, long timeoutMillis) {
        long deadline = System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(timeoutMillis);
        boolean interrupted = false;
        try {
            while (!done.getAsBoolean()) {
                long left = deadline - System.nanoTime();
                if (left <= 0) {
                    return false;
                }
                try {
                    monitor.wait(TimeUnit.NANOSECONDS.toMillis(left) + 1);
                } catch (InterruptedException e) {
                    interrupted = true;
                }
            }
            return true;
        } finally {
            if (interrupted) {
                Thread.currentThread().interrupt();
            }
        }
    }
}
