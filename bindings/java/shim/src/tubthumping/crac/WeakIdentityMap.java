package tubthumping.crac;

import java.lang.ref.ReferenceQueue;
import java.lang.ref.WeakReference;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * A map whose keys are held weakly and compared by identity: nothing of a key is ever called, and
 * being a key keeps nobody alive. In the order in which keys were put in last.
 *
 * @param <K> the keys
 * @param <V> the values, which must not lead to their keys
 */
public final class WeakIdentityMap<K, V> {
    private final Map<Object, V> values = new LinkedHashMap<>();
    private final ReferenceQueue<K> collected = new ReferenceQueue<>();

    /** Nothing yet. */
    public WeakIdentityMap() {}

    /**
     * Puts a value in, after all others.
     *
     * @param key held weakly
     * @param value must not lead to the key
     */
    public synchronized void put(K key, V value) {
        forgetCollected();
        Key<K> weak = new Key<>(key, collected);
        // Out first: the order of a LinkedHashMap is that of the first insertion.
        values.remove(weak);
        values.put(weak, value);
    }

    /**
     * The value of a key.
     *
     * @param key compared by identity
     * @return {@code null} if it has none
     */
    public synchronized V get(Object key) {
        return values.get(new Probe(key));
    }

    /** Takes a key out. */
    synchronized void remove(Object key) {
        values.remove(new Probe(key));
    }

    /** The living keys in order, held strongly by the result. */
    synchronized List<K> keys() {
        forgetCollected();
        List<K> living = new ArrayList<>(values.size());
        for (Object key : values.keySet()) {
            @SuppressWarnings("unchecked")
            K referent = ((Key<K>) key).get();
            if (referent != null) {
                living.add(referent);
            }
        }
        return living;
    }

    private void forgetCollected() {
        for (Object dead = collected.poll(); dead != null; dead = collected.poll()) {
            values.remove(dead);
        }
    }

    /** For a look-up, which does not need a reference object. */
    private static final class Probe {
        private final Object referent;

        Probe(Object referent) {
            this.referent = referent;
        }

        @Override
        public int hashCode() {
            return System.identityHashCode(referent);
        }

        @Override
        public boolean equals(Object other) {
            return other instanceof Key<?> key && key.get() == referent;
        }
    }

    private static final class Key<K> extends WeakReference<K> {
        private final int hash;

        Key(K referent, ReferenceQueue<K> queue) {
            super(referent, queue);
            hash = System.identityHashCode(referent);
        }

        @Override
        public int hashCode() {
            return hash;
        }

        @Override
        public boolean equals(Object other) {
            if (this == other) {
                return true;
            }
            K mine = get();
            return mine != null && other instanceof Key<?> key && key.get() == mine;
        }
    }
}
