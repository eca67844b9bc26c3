package tubthumping.crac;

import java.lang.System.Logger.Level;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeoutException;
import jdk.crac.CheckpointException;
import jdk.crac.Context;
import jdk.crac.Resource;
import jdk.crac.RestoreException;

/**
 * One checkpoint, from the first before-hook to the last after-hook, on a thread of its own.
 *
 * <p>In: a snapshot of the registered resources, and the engine's verdict. Out: what the resources
 * threw, and whether there is an image.
 *
 * <p>Invariant: every resource whose before-hook was called has its after-hook called once, and
 * not before its before-hook has returned.
 *
 * <p>The thread is no daemon: between the last before-hook and the first after-hook an application
 * may have no other thread that keeps the JVM alive.
 */
final class Round implements Runnable {
    /** Where a round stands. Only ever grows. */
    enum Phase {
        /** Before-hooks run, and the JVM gets ready. */
        PREPARING,
        /** Everything is ready for the engine. */
        PREPARED,
        /** After-hooks run. */
        RESUMING,
        /** Every resource has been told that the process goes on. */
        OVER
    }

    private static final System.Logger LOGGER = System.getLogger("jdk.crac");

    /** How long a timed-out round may take to tell those resources that have returned. */
    private static final long AFTER_PATIENCE_MS = 10_000;

    private final Coordinator coordinator;
    private final ResourcePolicies policies;
    private final boolean hasEngine;
    private final Context<Resource> context = GlobalContext.INSTANCE;
    private final List<Resource> resources = GlobalContext.INSTANCE.snapshot();
    private final Failures beforeFailures = new Failures();
    private final Failures afterFailures = new Failures();
    private final Quiescence quiescence = new Quiescence();
    private final Thread thread = new Thread(this, "CRaC checkpoint");

    // Guarded by this.
    private Phase phase = Phase.PREPARING;
    private Resource running;
    private int told;
    private boolean givenUp;
    private Thread teller;
    private boolean hasImage;
    private boolean interrupted;
    private RestoreInput input;
    private boolean awaited;

    /**
     * A round that has not started.
     *
     * @param policies what becomes of what the application leaves open
     * @param hasEngine whether anybody will take an image; the resources are told all the same
     */
    Round(Coordinator coordinator, ResourcePolicies policies, boolean hasEngine) {
        this.coordinator = coordinator;
        this.policies = policies;
        this.hasEngine = hasEngine;
    }

    void start() {
        // The default is that of the thread that is here now, which speaks to the engine.
        thread.setDaemon(false);
        thread.start();
    }

    @Override
    public void run() {
        log(Level.INFO, "Starting checkpoint", null);
        GlobalContext.INSTANCE.telling(thread);
        tellBefore();
        if (isClean() && !hasEngine) {
            beforeFailures.add(new RuntimeException("C/R is not configured"));
        }
        boolean ready = isClean() && quiesce() && enter(Phase.PREPARED);
        if (ready) {
            settle(Strings.unpackRaw(Agent.awaitVerdict()));
        } else {
            quiescence.end(afterFailures);
        }
        enter(Phase.RESUMING);
        GlobalContext.INSTANCE.telling(null);
        tellAfter(leftToTell());
        trace("restore-finish");
        RestoreInput given = input();
        if (given != null) {
            quiescence.startNewManagement(given, afterFailures);
            quiescence.startNewRecordings(given, afterFailures);
        }
        enter(Phase.OVER);
        coordinator.over(this);
    }

    // On the round's thread.

    private void tellBefore() {
        List<Resource> reversed = new ArrayList<>(resources);
        Collections.reverse(reversed);
        for (Resource resource : reversed) {
            synchronized (this) {
                if (givenUp) {
                    return;
                }
                running = resource;
                told++;
            }
            debug("beforeCheckpoint ", resource);
            try {
                resource.beforeCheckpoint(context);
            } catch (Throwable e) {
                // Errors too: a resource that was told must be told again, whatever it threw.
                failed(beforeFailures, e, resource);
            }
            returned();
        }
    }

    private void tellAfter(List<Resource> toTell) {
        for (Resource resource : toTell) {
            synchronized (this) {
                running = resource;
            }
            debug("afterRestore ", resource);
            try {
                resource.afterRestore(context);
            } catch (Throwable e) {
                failed(afterFailures, e, resource);
            }
            returned();
        }
    }

    private void failed(Failures failures, Throwable e, Resource resource) {
        failures.add(e, resource);
        synchronized (this) {
            // Whoever asked gets the flag back, unless the interrupt was ours.
            interrupted |= e instanceof InterruptedException && !givenUp;
        }
    }

    private void returned() {
        // One resource's interrupt is not the next one's.
        Thread.interrupted();
        synchronized (this) {
            // Once given up, the one that hung is remembered: it is left to this thread to tell.
            if (!givenUp) {
                running = null;
            }
        }
    }

    private synchronized boolean isClean() {
        return !givenUp && beforeFailures.isEmpty();
    }

    private boolean quiesce() {
        try {
            quiescence.begin(policies, resources.size(), beforeFailures);
            return beforeFailures.isEmpty();
        } catch (Throwable e) {
            beforeFailures.add(e);
            return false;
        }
    }

    /** Goes on to a phase; not to {@link Phase#PREPARED} if the round has been given up. */
    private synchronized boolean enter(Phase next) {
        if (next == Phase.PREPARED && givenUp) {
            return false;
        }
        phase = next;
        notifyAll();
        return true;
    }

    /** Deals with what became of the process, before any resource is told. */
    private void settle(List<byte[]> verdict) {
        try {
            hear(verdict);
        } finally {
            quiescence.end(afterFailures);
        }
    }

    private void hear(List<byte[]> verdict) {
        String kind = Strings.text(verdict.get(0));
        if (kind.equals("failed")) {
            Refusals.of(verdict.subList(2, verdict.size())).forEach(beforeFailures::add);
            if (!beforeFailures.isEmpty() && !Openings.areCollected()) {
                String hint = "Use -D" + Openings.PROPERTY + "=true to find the source.";
                log(Level.INFO, hint, null);
            }
            if (beforeFailures.isEmpty()) {
                beforeFailures.add(new RuntimeException(Strings.text(verdict.get(1))));
            }
            return;
        }
        synchronized (this) {
            hasImage = true;
        }
        coordinator.generation(Long.parseLong(Strings.text(verdict.get(2))));
        if (kind.equals("restored")) {
            Restored restored = Restored.of(verdict);
            synchronized (this) {
                input = restored.input();
            }
            quiescence.restored(restored, afterFailures);
            trace("restore");
        }
    }

    /** In order of registration, who has been told before and is not told after by another. */
    private synchronized List<Resource> leftToTell() {
        int from = resources.size() - told;
        if (!givenUp) {
            return resources.subList(from, resources.size());
        }
        return running == null ? List.of() : resources.subList(from, from + 1);
    }

    // On other threads.

    /** Waits until the round is prepared, or will not be, for at most so long. */
    synchronized boolean awaitPrepared(long timeoutMillis) {
        return Monitors.await(this, () -> phase != Phase.PREPARING, timeoutMillis);
    }

    /** Waits for the end of the round, for at most so long. */
    synchronized boolean awaitOver(long timeoutMillis) {
        return Monitors.await(this, () -> phase == Phase.OVER, timeoutMillis);
    }

    /**
     * Gives the round up because it takes too long. Resources that have returned are told at once
     * that the process goes on; the one that hangs is interrupted, and told when it returns.
     *
     * @return the reason, naming what hangs; {@code null} where the round has got further meanwhile
     */
    Exception giveUp(long timeoutMillis) {
        List<Resource> toTell;
        String hung = "the JVM's own preparation";
        synchronized (this) {
            if (phase != Phase.PREPARING) {
                return null;
            }
            givenUp = true;
            int from = resources.size() - told;
            if (running != null) {
                hung = Failures.describe(running);
                // Told in reverse order, so that the one that has not returned comes first.
                from++;
            }
            toTell = List.copyOf(resources.subList(from, resources.size()));
            teller = new Thread(() -> tellReturned(toTell), "CRaC after timeout");
        }
        thread.interrupt();
        teller.start();
        synchronized (this) {
            Monitors.await(this, () -> teller == null, AFTER_PATIENCE_MS);
        }
        String text = hung + ": did not return within " + timeoutMillis + " ms";
        Exception reason = new TimeoutException(text);
        beforeFailures.add(reason);
        return reason;
    }

    private void tellReturned(List<Resource> toTell) {
        for (Resource resource : toTell) {
            try {
                resource.afterRestore(context);
            } catch (Throwable e) {
                failed(afterFailures, e, resource);
            }
        }
        synchronized (this) {
            teller = null;
            notifyAll();
        }
    }

    /** Whether the current thread runs hooks of this round, so that it must not wait for it. */
    synchronized boolean runsHere() {
        return Thread.currentThread() == thread || Thread.currentThread() == teller;
    }

    synchronized Phase phase() {
        return phase;
    }

    /** Whether the verdict is known, so that only after-hooks are left. */
    synchronized boolean isResuming() {
        return phase == Phase.RESUMING && !givenUp || phase == Phase.OVER;
    }

    /** The resource whose hook runs now, for people; {@code null} for none. */
    synchronized String running() {
        return running == null ? null : Failures.describe(running);
    }

    private synchronized RestoreInput input() {
        return input;
    }

    /** Whether a new class is to be run in this copy. */
    boolean hasNewMain() {
        RestoreInput given = input();
        return given != null && given.hasMain() && afterFailures.isEmpty();
    }

    /**
     * Runs the new class on this thread.
     *
     * @throws RestoreException if that fails; the reason is suppressed
     */
    void runNewMain() throws RestoreException {
        try {
            input().runMain();
        } catch (Exception e) {
            RestoreException exception = new RestoreException();
            exception.addSuppressed(e);
            throw exception;
        }
    }

    /** The same where nobody waits for an exception: a class that throws is told as by the JVM. */
    void runNewMainAlone() {
        try {
            runNewMain();
        } catch (RestoreException e) {
            log(Level.ERROR, "the new main class failed", e.getSuppressed()[0]);
        }
    }

    synchronized void isAwaited(boolean awaited) {
        this.awaited = awaited;
    }

    /** Whether a thread of the application waits for the end of this round and its exceptions. */
    synchronized boolean isAwaited() {
        return awaited;
    }

    synchronized boolean wasInterrupted() {
        return interrupted;
    }

    Failures beforeFailures() {
        return beforeFailures;
    }

    List<Integer> keptDescriptors() {
        return quiescence.keptDescriptors();
    }

    Map<String, String> metrics() {
        return quiescence.metrics();
    }

    List<String> allowedPaths() {
        return quiescence.allowedPaths();
    }

    /** Resources in order of registration, for people. */
    List<String> resourceNames() {
        return resources.stream().map(Failures::describe).toList();
    }

    /** Throws what the round has to say to whoever asked for it. */
    void report() throws CheckpointException, RestoreException {
        boolean failed;
        synchronized (this) {
            failed = !hasImage;
        }
        if (failed) {
            CheckpointException exception = new CheckpointException();
            throw afterFailures.suppressedIn(beforeFailures.suppressedIn(exception));
        }
        if (!afterFailures.isEmpty()) {
            throw afterFailures.suppressedIn(new RestoreException());
        }
    }

    /** Logs what would be lost because nobody waits for the end of the round. */
    void logFailures() {
        for (Failures.Failure failure : beforeFailures.list()) {
            // The engine tells what is open, but not where it was opened.
            if (failure.resource() == null && failure.thrown().getCause() != null) {
                log(Level.WARNING, "left open", failure.thrown());
            }
        }
        for (Failures.Failure failure : afterFailures.list()) {
            String who = failure.resource() == null ? "the JVM" : failure.resource();
            String text = who + ": failed to go on after a checkpoint";
            log(Level.ERROR, text, failure.thrown());
        }
    }

    private static void debug(String what, Resource resource) {
        if (LOGGER.isLoggable(Level.DEBUG)) {
            log(Level.DEBUG, what + Failures.describe(resource), null);
        }
    }

    /** What scripts that measure a CRaC JDK look for, where they ask for it. */
    private void trace(String stage) {
        if (input() != null && Boolean.getBoolean("jdk.crac.trace-startup-time")) {
            System.out.println("STARTUPTIME " + System.nanoTime() + " " + stage);
        }
    }

    private static void log(Level level, String text, Throwable thrown) {
        try {
            LOGGER.log(level, text, thrown);
        } catch (Throwable e) {
            // A logging back end that fails is no reason for the round to fail as well.
        }
    }
}
